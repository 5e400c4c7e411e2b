//! YAML text -> a tree in which every key and every scalar knows its bytes in the text.
//!
//! Built from parser events rather than by serde: a mistake must not hide the ones after it (serde
//! stops at the first), and whether a scalar was quoted decides what `0644`, `no` and `1.10` mean.
//! Depth, nodes and expanded bytes are bounded, so that no small text becomes a large tree.

use std::collections::HashMap;
use std::ops::Range;
use std::rc::Rc;
use std::sync::Arc;

use serde_yaml::granit_parser::{Event, Options, Parser, ScalarStyle, ScanError, Tag};

use crate::diagnostic::{Diagnostic, Source};

/// Collections inside collections. People write about eight.
const MAX_DEPTH: usize = 64;
/// Nodes, each alias counted with all that it stands for.
const MAX_NODES: usize = 300_000;
/// Bytes of all scalars, each alias counted with all that it stands for.
const MAX_TEXT: usize = 16 << 20;

/// Diagnostics of one playbook.
pub(super) const MAX_FOUND: usize = 200;

/// A value as it was written.
#[derive(Debug)]
pub(super) struct Node {
    pub kind: Kind,
    /// Bytes in the source. Of a collection: from its first to its last entry.
    pub span: Range<usize>,
    nodes: usize,
    text: usize,
}

#[derive(Debug)]
pub(super) enum Kind {
    Scalar { text: String, style: ScalarStyle },
    List(Vec<Rc<Node>>),
    Map(Vec<Entry>),
}

/// One `key: value`.
#[derive(Debug, Clone)]
pub(super) struct Entry {
    pub key: String,
    pub key_span: Range<usize>,
    pub value: Rc<Node>,
}

impl Node {
    /// This very text, quoted or not.
    pub fn is_text(&self, wanted: &str) -> bool {
        matches!(&self.kind, Kind::Scalar { text, .. } if text == wanted)
    }

    /// A plain `null`, `~` or nothing at all.
    pub fn is_null(&self) -> bool {
        match &self.kind {
            Kind::Scalar { text, style } => {
                *style == ScalarStyle::Plain && matches!(text.as_str(), "" | "~" | "null")
            }
            Kind::List(_) | Kind::Map(_) => false,
        }
    }

    /// What it is, for messages.
    pub fn noun(&self) -> &'static str {
        match self.kind {
            _ if self.is_null() => "nothing",
            Kind::Scalar { .. } => "text",
            Kind::List(_) => "a list",
            Kind::Map(_) => "a mapping",
        }
    }

    fn scalar(text: String, style: ScalarStyle, span: Range<usize>) -> Self {
        Self {
            nodes: 1,
            text: text.len(),
            kind: Kind::Scalar { text, style },
            span,
        }
    }
}

/// A collection that is still open.
struct Open {
    anchor: usize,
    at: Range<usize>,
    what: OpenKind,
}

enum OpenKind {
    List(Vec<Rc<Node>>),
    Map {
        entries: Vec<Entry>,
        /// Keys and their lines.
        seen: HashMap<String, usize>,
        merges: Vec<(Rc<Node>, Range<usize>)>,
        /// The key that waits for its value: text, place, whether plain, line.
        key: Option<(String, Range<usize>, bool, usize)>,
    },
}

struct Builder<'a> {
    source: &'a Arc<Source>,
    open: Vec<Open>,
    anchors: HashMap<usize, Rc<Node>>,
    root: Option<Rc<Node>>,
    documents: usize,
    nodes: usize,
    text: usize,
    /// The line of the event being handled, from 1.
    line: usize,
    found: Vec<Diagnostic>,
    left_out: Vec<Rc<Node>>,
}

/// A parsed text.
pub(super) struct Tree {
    /// None where it is empty or no YAML.
    pub root: Option<Rc<Node>>,
    pub found: Vec<Diagnostic>,
    /// Values of keys that are written twice.
    pub left_out: Vec<Rc<Node>>,
}

/// Parses the whole text. Duplicate keys and refused tags are collected; the tree is still built
/// without them, so that the rest can be checked.
pub(super) fn parse(source: &Arc<Source>) -> Tree {
    let mut options = Options::default();
    options.flow_nesting_limit = MAX_DEPTH;
    options.block_nesting_limit = MAX_DEPTH;
    options.set_emit_comments(false);
    let mut builder = Builder {
        source,
        open: Vec::new(),
        anchors: HashMap::new(),
        root: None,
        documents: 0,
        nodes: 0,
        text: 0,
        line: 1,
        found: Vec::new(),
        left_out: Vec::new(),
    };
    let offset = bom(&source.text);
    for event in Parser::new_from_str_with_options(&source.text[offset..], options) {
        let step = match event {
            Ok((event, span)) => {
                let bytes = span.byte_range().unwrap_or(0..0);
                builder.line = span.start.line();
                builder.step(event, bytes.start + offset..bytes.end + offset)
            }
            Err(error) => Err(Box::new(syntax(source, &error, offset))),
        };
        if let Err(fatal) = step {
            builder.found.push(*fatal);
            builder.root = None;
            break;
        }
    }
    Tree {
        root: builder.root,
        found: builder.found,
        left_out: builder.left_out,
    }
}

fn bom(text: &str) -> usize {
    if text.starts_with('\u{feff}') { 3 } else { 0 }
}

fn syntax(source: &Arc<Source>, error: &ScanError, offset: usize) -> Diagnostic {
    let at = error.marker().byte_offset().unwrap_or(0) + offset;
    let at = at.min(source.text.len());
    let at = (0..=at)
        .rev()
        .find(|&i| source.text.is_char_boundary(i))
        .unwrap_or(0);
    let line_start = source.text[..at].rfind('\n').map_or(0, |i| i + 1);
    let line = source.text[line_start..].lines().next().unwrap_or("");
    let indent = &line[..line.len() - line.trim_start().len()];
    let d = Diagnostic::error(format!("this is not YAML: {}", error.info()));
    if indent.contains('\t') {
        let tab = line_start + indent.find('\t').unwrap_or(0);
        return Diagnostic::error("a tab in the indentation")
            .at(source, tab..tab + 1, "")
            .help("YAML is indented with spaces only");
    }
    let d = d.at(source, at..at, "");
    match syntax_help(line, &error.info()) {
        Some(help) => d.help(help),
        None => d,
    }
}

fn syntax_help(line: &str, message: &str) -> Option<&'static str> {
    let value = line.trim_start().trim_start_matches("- ");
    let value = value
        .split_once(": ")
        .map_or(value, |(_, value)| value.trim_start());
    if message.contains("block collection") || message.contains("block mapping") {
        Some("the line is not indented like the ones it belongs to")
    } else if message.contains("unclosed") {
        None
    } else if line.contains("${{") && line.contains('[') {
        Some("inside `[...]` a text with `${{ }}` must be quoted: \"${{ name }}\"")
    } else if line.matches(": ").count() > 1 {
        Some("a text that holds `: ` must be quoted, or written under `|` on lines of its own")
    } else if value.starts_with(|c| "\"'[{*&!%@`|>".contains(c)) {
        Some(
            "a text that begins with one of \" ' [ { * & ! % @ ` | > must be quoted as a whole, \
             or written under `|` on lines of its own",
        )
    } else {
        None
    }
}

type Step = Result<(), Box<Diagnostic>>;

impl Builder<'_> {
    fn step(&mut self, event: Event<'_>, at: Range<usize>) -> Step {
        match event {
            Event::DocumentStart(..) => {
                self.documents += 1;
                if self.documents > 1 {
                    return self.fatal(at, "a second YAML document", "a playbook is one document: list its plays under `plays:` instead of separating them with `---`");
                }
                Ok(())
            }
            Event::Scalar(text, style, anchor, tag) => {
                self.tag(tag.as_deref(), &at);
                let span = trim(&self.source.text, at);
                let forced = tag.as_deref().and_then(Tag::core_suffix) == Some("str");
                let style = match style {
                    ScalarStyle::Plain if forced => ScalarStyle::SingleQuoted,
                    style => style,
                };
                self.finished(Node::scalar(text.into_owned(), style, span), anchor)
            }
            Event::SequenceStart(_, anchor, tag) => {
                self.tag(tag.as_deref(), &at);
                self.begin(anchor, at, OpenKind::List(Vec::new()))
            }
            Event::MappingStart(_, anchor, tag) => {
                self.tag(tag.as_deref(), &at);
                let what = OpenKind::Map {
                    entries: Vec::new(),
                    seen: HashMap::new(),
                    merges: Vec::new(),
                    key: None,
                };
                self.begin(anchor, at, what)
            }
            Event::SequenceEnd | Event::MappingEnd => self.end(),
            Event::Alias(id) => match self.anchors.get(&id).cloned() {
                Some(node) => self.place(&node, at),
                None => self.fatal(at, "an alias that stands inside what it names", ""),
            },
            Event::UnresolvedAlias(name) => {
                self.fatal(at, &format!("no anchor `&{name}` before this alias"), "")
            }
            // Stream and document ends, and whatever a later parser may add, carry no value.
            _ => Ok(()),
        }
    }

    fn fatal(&self, at: Range<usize>, message: &str, help: &str) -> Step {
        let d = Diagnostic::error(message).at(self.source, at, "");
        Err(Box::new(if help.is_empty() { d } else { d.help(help) }))
    }

    /// Notes a mistake, up to a bound: a text of mistakes alone must not fill the memory.
    fn note(&mut self, found: Diagnostic) {
        if self.found.len() < MAX_FOUND {
            self.found.push(found);
        }
    }

    fn tag(&mut self, tag: Option<&Tag>, at: &Range<usize>) {
        let Some(tag) = tag else { return };
        let core = ["str", "int", "float", "bool", "null", "seq", "map"];
        if !tag.core_suffix().is_some_and(|s| core.contains(&s)) {
            let d = Diagnostic::error(format!("the tag `{}` is not allowed", tag.original()));
            self.note(
                d.at(self.source, at.clone(), "").help(
                    "a playbook holds plain text, numbers, lists and mappings; remove the tag",
                ),
            );
        }
    }

    fn begin(&mut self, anchor: usize, at: Range<usize>, what: OpenKind) -> Step {
        if self.open.len() >= MAX_DEPTH {
            let text = format!("more than {MAX_DEPTH} collections inside each other");
            return self.fatal(at, &text, "");
        }
        self.open.push(Open { anchor, at, what });
        Ok(())
    }

    fn end(&mut self) -> Step {
        let Some(open) = self.open.pop() else {
            return Ok(());
        };
        let node = match open.what {
            OpenKind::List(items) => list(items, open.at),
            OpenKind::Map {
                entries, merges, ..
            } => self.map(entries, merges, open.at),
        };
        self.finished(node, open.anchor)
    }

    fn finished(&mut self, node: Node, anchor: usize) -> Step {
        let node = Rc::new(node);
        if anchor != 0 {
            self.anchors.insert(anchor, Rc::clone(&node));
        }
        let at = node.span.clone();
        self.place(&node, at)
    }

    fn charge(&mut self, node: &Node, at: &Range<usize>) -> Step {
        // A collection's entries were counted when they were placed; an alias counts whole.
        let alias = *at != node.span;
        let scalar = matches!(node.kind, Kind::Scalar { .. });
        self.nodes += if alias { node.nodes } else { 1 };
        self.text += if alias || scalar { node.text } else { 0 };
        if self.nodes > MAX_NODES || self.text > MAX_TEXT {
            return self.fatal(
                at.clone(),
                "the playbook is too large once its aliases are written out",
                &format!(
                    "at most {MAX_NODES} values and {} MiB of text are possible",
                    MAX_TEXT >> 20
                ),
            );
        }
        Ok(())
    }

    fn place(&mut self, node: &Rc<Node>, at: Range<usize>) -> Step {
        self.charge(node, &at)?;
        let Some(open) = self.open.last_mut() else {
            self.root = Some(Rc::clone(node));
            return Ok(());
        };
        match &mut open.what {
            OpenKind::List(items) => items.push(Rc::clone(node)),
            OpenKind::Map {
                key: slot @ None, ..
            } => {
                let Kind::Scalar { text, style } = &node.kind else {
                    return self.fatal(at, "a key must be text", "");
                };
                *slot = Some((text.clone(), at, *style == ScalarStyle::Plain, self.line));
            }
            OpenKind::Map {
                entries,
                seen,
                merges,
                key,
            } => {
                let Some((key, key_span, plain, line)) = key.take() else {
                    return Ok(());
                };
                if key == "<<" && plain {
                    merges.push((Rc::clone(node), key_span));
                } else if let Some(&first) = seen.get(&key) {
                    let d = Diagnostic::error(format!("`{key}` is written twice"));
                    let d = d.at(self.source, key_span, "");
                    self.left_out.push(Rc::clone(node));
                    self.note(d.help(format!("it is already on line {first}; keep one")));
                } else {
                    seen.insert(key.clone(), line);
                    entries.push(Entry {
                        key,
                        key_span,
                        value: Rc::clone(node),
                    });
                }
            }
        }
        Ok(())
    }

    /// Adds merged entries after the mapping's own, which win (YAML 1.1 merge key type).
    fn map(
        &mut self,
        mut entries: Vec<Entry>,
        merges: Vec<(Rc<Node>, Range<usize>)>,
        at: Range<usize>,
    ) -> Node {
        let mut have: std::collections::HashSet<String> =
            entries.iter().map(|e| e.key.clone()).collect();
        for (node, span) in merges {
            let parts = match &node.kind {
                Kind::List(items) => items.clone(),
                Kind::Map(_) | Kind::Scalar { .. } => vec![node],
            };
            for part in parts {
                let Kind::Map(more) = &part.kind else {
                    let d = Diagnostic::error("`<<` takes a mapping or a list of mappings");
                    self.note(d.at(self.source, span.clone(), ""));
                    continue;
                };
                entries.extend(more.iter().filter(|e| have.insert(e.key.clone())).cloned());
            }
        }
        let span = match (entries.first(), entries.last()) {
            (Some(first), Some(last)) if first.key_span.start >= at.start => {
                first.key_span.start..last.value.span.end.max(first.key_span.end)
            }
            _ => at,
        };
        Node {
            nodes: 1 + entries.iter().map(|e| e.value.nodes).sum::<usize>(),
            text: entries.iter().map(|e| e.value.text + e.key.len()).sum(),
            kind: Kind::Map(entries),
            span,
        }
    }
}

fn list(items: Vec<Rc<Node>>, at: Range<usize>) -> Node {
    let span = match (items.first(), items.last()) {
        (Some(first), Some(last)) if first.span.start >= at.start => {
            at.start..last.span.end.max(at.end)
        }
        _ => at,
    };
    Node {
        nodes: 1 + items.iter().map(|n| n.nodes).sum::<usize>(),
        text: items.iter().map(|n| n.text).sum(),
        kind: Kind::List(items),
        span,
    }
}

fn trim(text: &str, at: Range<usize>) -> Range<usize> {
    let slice = text.get(at.clone()).unwrap_or("");
    at.start..at.start + slice.trim_end().len()
}
