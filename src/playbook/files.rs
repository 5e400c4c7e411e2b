//! Actions on files: the tree of `ls` -> what is to be listed.

use std::time::{SystemTime, UNIX_EPOCH};

use globset::GlobBuilder;

use super::model::Action;
use super::tree::{Entry, Kind, Node};
use super::units;
use super::validate::{Check, Level, get};
use crate::listing::{Kind as FileKind, Listing, ModeTest};

impl Check<'_> {
    /// `ls: PATH`, `ls: [PATH, ...]` or a mapping.
    pub(super) fn listing(&mut self, node: &Node) -> Option<Action> {
        let mut listing = Listing {
            depth: Some(1),
            ..Listing::default()
        };
        let paths = match &node.kind {
            Kind::Map(entries) => {
                self.check_keys(entries, Level::List);
                self.listing_keys(entries, &mut listing);
                self.check_state(entries);
                let Some(path) = get(entries, "path") else {
                    let help = Some("name it: `path: /var/log`");
                    self.error("`ls` has no `path`".into(), node, "", help);
                    return None;
                };
                path
            }
            Kind::Scalar { .. } | Kind::List(_) => node,
        };
        let paths = match &paths.kind {
            Kind::List(items) if items.is_empty() => {
                self.error("`ls` has no path".into(), paths, "", None);
                return None;
            }
            Kind::List(_) => self.templates("ls", paths),
            Kind::Scalar { .. } | Kind::Map(_) => vec![self.template("ls", paths)?],
        };
        Some(Action::List { paths, listing })
    }

    fn listing_keys(&mut self, entries: &[Entry], listing: &mut Listing) {
        for Entry { key, value, .. } in entries {
            let key = key.as_str();
            let wanted = &mut listing.wanted;
            match key {
                "depth" => match self.text(key, value) {
                    Some("all") => listing.depth = None,
                    Some(_) => {
                        let depth = self.whole(key, value, 0..100_001);
                        listing.depth = depth.and_then(|depth| u32::try_from(depth).ok());
                    }
                    None => {}
                },
                "files" | "dirs" | "links" => {
                    let kind = match key {
                        "files" => FileKind::File,
                        "dirs" => FileKind::Dir,
                        _ => FileKind::Link,
                    };
                    let on = self.yes_no(key, value);
                    wanted.kinds.extend(on.then_some(kind));
                }
                "include" => wanted.include = self.globs(key, value),
                "exclude" => wanted.exclude = self.globs(key, value),
                "regex" => wanted.regex = self.regex(key, value),
                "newer" if value.is_text("@last") => {}
                "newer" => wanted.newer = self.moment(key, value),
                "state" => {
                    let path = self.plain(key, value);
                    listing.state = path.map(|path| path.value.into());
                }
                "older" => wanted.older = self.moment(key, value),
                "min_size" => wanted.min_size = self.size(key, value),
                "max_size" => wanted.max_size = self.size(key, value),
                "owner" => wanted.owner = self.plain(key, value).map(|owner| owner.value),
                "mode" => wanted.mode = self.mode_test(key, value),
                "errors" => {
                    let words = [("ignore", true), ("fail", false)];
                    listing.ignore_errors = self.one_of(key, value, &words).unwrap_or_default();
                }
                _ => {}
            }
        }
    }

    /// `newer: @last` and `state` need each other.
    fn check_state(&mut self, entries: &[Entry]) {
        let last = get(entries, "newer").filter(|newer| newer.is_text("@last"));
        match (last, get(entries, "state")) {
            (Some(newer), None) => {
                let help = Some("name a file beside the playbook: `state: seen.json`");
                let message = "`newer: @last` needs `state`, where it keeps what it has seen";
                self.error(message.into(), newer, "", help);
            }
            (None, Some(state)) => {
                let message = "`state` goes with `newer: @last`";
                self.error(message.into(), state, "", None);
            }
            (Some(_), Some(_)) | (None, None) => {}
        }
    }

    pub(super) fn globs(&mut self, key: &str, node: &Node) -> Vec<String> {
        let texts = self.plains(key, node);
        for text in &texts {
            if let Err(error) = GlobBuilder::new(&text.value)
                .literal_separator(true)
                .build()
            {
                let message = format!("`{}` is no pattern: {}", text.value, error.kind());
                self.error_at(message, text.at.span.clone(), "", None);
            }
        }
        texts.into_iter().map(|text| text.value).collect()
    }

    pub(super) fn regex(&mut self, key: &str, node: &Node) -> Option<String> {
        let text = self.plain(key, node)?;
        match regex::bytes::Regex::new(&text.value) {
            Ok(_) => Some(text.value),
            Err(error) => {
                let reason = error.to_string();
                let reason = reason.lines().last().unwrap_or_default();
                let reason = reason.trim_start_matches("error: ").to_owned();
                let message = format!("`{}` is no regular expression: {reason}", text.value);
                self.error_at(message, text.at.span, "", None);
                None
            }
        }
    }

    fn moment(&mut self, key: &str, node: &Node) -> Option<i64> {
        let text = self.text(key, node)?;
        let now = SystemTime::now().duration_since(UNIX_EPOCH);
        let now = now.map_or(0, |now| i64::try_from(now.as_secs()).unwrap_or(0));
        self.quantity(key, text, node, units::moment(text, now))
    }

    fn size(&mut self, key: &str, node: &Node) -> Option<u64> {
        let text = self.text(key, node)?;
        self.quantity(key, text, node, units::size(text))
    }

    fn quantity<T>(
        &mut self,
        key: &str,
        text: &str,
        node: &Node,
        read: Result<T, units::BadQuantity>,
    ) -> Option<T> {
        match read {
            Ok(value) => Some(value),
            Err(bad) => {
                let help = bad.help();
                self.error(format!("`{key}: {text}` {bad}"), node, "", help.as_deref());
                None
            }
        }
    }

    fn mode_test(&mut self, key: &str, node: &Node) -> Option<ModeTest> {
        let text = self.text(key, node)?;
        let test = ModeTest::parse(text);
        if test.is_none() {
            let help = "write it like find: `0644` (exactly), `-022` (all of), `/022` (any of)";
            self.error(format!("`{key}: {text}` is no mode"), node, "", Some(help));
        }
        test
    }
}
