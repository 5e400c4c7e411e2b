//! Actions that copy: the trees of `upload` and `download` -> what goes where, and how.

use super::model::{Action, Copy};
use super::tree::{Entry, Kind, Node};
use super::units;
use super::validate::{Check, Level, get};
use crate::transfer::{How, Preserve, Same, Symlinks};

impl Check<'_> {
    /// `upload:` and `download:`, each a mapping with `src` and `dest`.
    pub(super) fn copy(&mut self, key: &str, node: &Node, level: Level) -> Option<Action> {
        let Kind::Map(entries) = &node.kind else {
            let help = format!("write it like `{key}: {{src: app.conf, dest: /etc/app.conf}}`");
            let message = format!("`{key}` must be a mapping, not {}", node.noun());
            self.error(message, node, "", Some(&help));
            return None;
        };
        self.check_keys(entries, level);
        let how = self.how(entries);
        let (template, flat) = (self.yes(entries, "template"), self.yes(entries, "flat"));
        let sources = match get(entries, "src") {
            Some(
                list @ Node {
                    kind: Kind::List(items),
                    ..
                },
            ) if items.is_empty() => {
                self.error("`src` is an empty list".into(), list, "", None);
                None
            }
            Some(
                list @ Node {
                    kind: Kind::List(_),
                    ..
                },
            ) => Some(self.templates("src", list)),
            Some(one) => self.template("src", one).map(|one| vec![one]),
            None => {
                let message = format!("`{key}` has no `src`");
                self.error(message, node, "", Some("name what is copied: `src: PATH`"));
                None
            }
        };
        let dest = match get(entries, "dest") {
            Some(dest) => self.template("dest", dest),
            None => {
                let message = format!("`{key}` has no `dest`");
                self.error(message, node, "", Some("name where it goes: `dest: PATH`"));
                None
            }
        };
        self.check_template(entries, sources.as_deref().unwrap_or_default());
        let src = get(entries, "src").unwrap_or(node);
        let copy = Copy {
            sources: sources?,
            dest: dest?,
            how,
            template,
            flat,
            at: self.at(&src.span),
        };
        Some(match level {
            Level::Upload => Action::Upload(copy),
            _ => Action::Download(copy),
        })
    }

    /// A file that is filled in is read before there are variables, and is no tree.
    fn check_template(&mut self, entries: &[Entry], sources: &[super::Template]) {
        if !self.yes(entries, "template") {
            return;
        }
        if let Some(src) = get(entries, "src")
            && sources.iter().any(|source| source.literal().is_none())
        {
            let message = "`src` cannot hold `${{ }}` beside `template: true`";
            let help = "the file is read before there are variables; name it as it is";
            self.error(message.into(), src, "", Some(help));
        }
        for key in ["delete", "resume", "symlinks", "exclude"] {
            if let Some(entry) = entries.iter().find(|entry| entry.key == key) {
                let message = format!("`{key}` has no effect beside `template: true`");
                let help = Some("remove it: what is filled in are single files");
                self.error_at(message, entry.key_span.clone(), "", help);
            }
        }
    }

    fn yes(&mut self, entries: &[Entry], key: &str) -> bool {
        get(entries, key).is_some_and(|value| self.yes_no(key, value))
    }

    fn how(&mut self, entries: &[Entry]) -> How {
        let mut how = How {
            verify: self.yes(entries, "verify"),
            delete: self.yes(entries, "delete"),
            resume: self.yes(entries, "resume"),
            backup: self.yes(entries, "backup"),
            durable: self.yes(entries, "durable"),
            ..How::default()
        };
        for Entry { key, value, .. } in entries {
            match key.as_str() {
                "mode" => how.mode = self.mode(value),
                "preserve" => how.preserve = self.preserve(value),
                "owner" => how.owner = self.plain("owner", value).map(|owner| owner.value),
                "only_changed" => {
                    let words = [
                        ("true", Some(Same::SizeAndTime)),
                        ("false", None),
                        ("checksum", Some(Same::Content)),
                    ];
                    how.only_changed = self.one_of("only_changed", value, &words).flatten();
                }
                "symlinks" => {
                    let words = [
                        ("copy", Symlinks::Copy),
                        ("follow", Symlinks::Follow),
                        ("skip", Symlinks::Skip),
                    ];
                    how.symlinks = self.one_of("symlinks", value, &words).unwrap_or_default();
                }
                "exclude" => how.exclude = self.globs(key, value),
                "bandwidth" => how.bandwidth = self.bandwidth(value),
                _ => {}
            }
        }
        how
    }

    fn mode(&mut self, node: &Node) -> Option<u32> {
        let text = self.text("mode", node)?;
        let octal = text.len() >= 3 && text.bytes().all(|byte| (b'0'..=b'7').contains(&byte));
        let bits = u32::from_str_radix(text, 8).ok().filter(|_| octal);
        let bits = bits.filter(|bits| *bits <= 0o7777);
        if bits.is_none() {
            let help = "write it in octal, as for chmod: `0644`";
            self.error(format!("`mode: {text}` is no mode"), node, "", Some(help));
        }
        bits
    }

    fn preserve(&mut self, node: &Node) -> Preserve {
        let both = Preserve {
            mode: true,
            times: true,
            set_id: false,
        };
        let words = [
            ("true", both),
            ("false", Preserve::default()),
            (
                "mode",
                Preserve {
                    mode: true,
                    ..Preserve::default()
                },
            ),
            (
                "times",
                Preserve {
                    times: true,
                    ..Preserve::default()
                },
            ),
            (
                "setid",
                Preserve {
                    set_id: true,
                    mode: true,
                    times: false,
                },
            ),
        ];
        let mut all = Preserve::default();
        let items = match &node.kind {
            Kind::List(items) => items.iter().map(|item| &**item).collect(),
            Kind::Scalar { .. } | Kind::Map(_) => vec![node],
        };
        for item in items {
            if let Some(one) = self.one_of("preserve", item, &words) {
                all.mode |= one.mode;
                all.times |= one.times;
                all.set_id |= one.set_id;
            }
        }
        all
    }

    fn bandwidth(&mut self, node: &Node) -> Option<u64> {
        let text = self.text("bandwidth", node)?;
        match units::size(text.strip_suffix("/s").unwrap_or(text)) {
            Ok(0) => {
                self.error("`bandwidth: 0` would never end".into(), node, "", None);
                None
            }
            Ok(rate) => Some(rate),
            Err(bad) => {
                let message = format!("`bandwidth: {text}` {bad}");
                let help = "bytes a second over all hosts together, such as `10MiB`";
                self.error(message, node, "", Some(help));
                None
            }
        }
    }
}
