//! `key=value` lines: `/etc/os-release`, `systemctl show`, and others with their own separator.

use std::collections::HashSet;
use std::sync::Arc;

use super::{MAX_COLUMNS, Misfit, misfit, too_many, typed};
use crate::rows::{Pairs as Spec, Row, Type};

#[derive(Debug, Clone)]
pub(super) struct Pairs {
    spec: Arc<Spec>,
    types: Arc<[(String, Type)]>,
    row: Row,
    seen: HashSet<Arc<str>>,
}

impl Pairs {
    pub(super) fn new(spec: &Spec, types: &Arc<[(String, Type)]>) -> Self {
        Self {
            spec: Arc::new(spec.clone()),
            types: Arc::clone(types),
            row: Row::default(),
            seen: HashSet::new(),
        }
    }

    pub(super) fn line(&mut self, line: &[u8]) -> Result<Option<Row>, Misfit> {
        let trimmed = line.trim_ascii();
        if trimmed.is_empty() {
            return Ok(if self.spec.blocks { self.take() } else { None });
        }
        if self.spec.quotes && trimmed.starts_with(b"#") {
            return Ok(None);
        }
        let separator = self.spec.separator.as_bytes();
        let Some(at) = memchr::memmem::find(line, separator) else {
            let expected = format!("a key and `{}` are expected", self.spec.separator);
            return Err(misfit(0..line.len(), expected));
        };
        let key = line[..at].trim_ascii();
        let key = std::str::from_utf8(key).ok().filter(|key| !key.is_empty());
        let key: Arc<str> = key
            .ok_or_else(|| misfit(0..at, "a key is expected here"))?
            .into();
        if self.seen.contains(&key) {
            let hint = if self.spec.blocks {
                ""
            } else {
                "; `blocks: true` makes a row of every block"
            };
            return Err(misfit(0..at, format!("`{key}` came before{hint}")));
        }
        if self.seen.len() >= MAX_COLUMNS {
            return Err(misfit(0..at, too_many()).fatal());
        }
        let from = at + separator.len();
        let value = if self.spec.quotes {
            unquoted(&line[from..]).map_err(|why| misfit(from..line.len(), why))?
        } else {
            line[from..].trim_ascii().to_vec()
        };
        let (value, rounded) =
            typed(&self.types, &key, &value).map_err(|wanted| misfit(from..line.len(), wanted))?;
        self.row.approximate |= rounded;
        self.seen.insert(Arc::clone(&key));
        self.row.cells.push((key, value));
        Ok(None)
    }

    pub(super) fn take(&mut self) -> Option<Row> {
        self.seen.clear();
        let row = std::mem::take(&mut self.row);
        (!row.cells.is_empty()).then_some(row)
    }
}

/// The value of a shell assignment: quotes and backslashes as in POSIX, "Quoting", and nothing that
/// a shell would expand.
fn unquoted(text: &[u8]) -> Result<Vec<u8>, &'static str> {
    const OPEN: &str = "a closing quote is expected; `quotes: false` takes values as they stand";
    const MORE: &str = "one quoted word is expected; `quotes: false` takes values as they stand";
    let mut out = Vec::new();
    let mut rest = text.trim_ascii().iter();
    while let Some(byte) = rest.next() {
        match byte {
            b'\'' => loop {
                match rest.next().ok_or(OPEN)? {
                    b'\'' => break,
                    byte => out.push(*byte),
                }
            },
            b'"' => loop {
                match rest.next().ok_or(OPEN)? {
                    b'"' => break,
                    b'\\' => {
                        let next = rest.next().ok_or(OPEN)?;
                        if !matches!(next, b'"' | b'\\' | b'$' | b'`') {
                            out.push(b'\\');
                        }
                        out.push(*next);
                    }
                    byte => out.push(*byte),
                }
            },
            b'\\' => out.extend(rest.next()),
            b' ' | b'\t' => return Err(MORE),
            byte => out.push(*byte),
        }
    }
    Ok(out)
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::rows::Value;

    #[test]
    fn quotes_are_the_shells() {
        let good: [(&[u8], &[u8]); 7] = [
            (b"plain", b"plain"),
            (b"\"Debian GNU/Linux\"", b"Debian GNU/Linux"),
            (b"'it'\\''s'", b"it's"),
            (b"\"a \\\"b\\\" \\n\"", b"a \"b\" \\n"),
            (b"a\"b c\"d", b"ab cd"),
            (b"", b""),
            (b"\"\"", b""),
        ];
        for (text, value) in good {
            assert_eq!(unquoted(text).as_deref(), Ok(value));
        }
        for bad in [&b"\"open"[..], b"'open", b"two words", b"\"a\" b", b"\"a\\"] {
            assert!(unquoted(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn values_stay_what_they_are() {
        let spec = Spec {
            separator: ":".into(),
            quotes: false,
            blocks: false,
        };
        let types = Arc::from(vec![("Limit".to_owned(), Type::Size)]);
        let mut pairs = Pairs::new(&spec, &types);
        assert_eq!(pairs.line(b"Limit:       2 GiB"), Ok(None));
        assert_eq!(pairs.line(b"Path: a:b \"c\""), Ok(None));
        let row = pairs.take().unwrap();
        assert_eq!(row.get("Limit"), Some(&Value::Size(2 << 30)));
        let path = Value::Text(Bytes::from_static(b"a:b \"c\""));
        assert_eq!(row.get("Path"), Some(&path));
    }
}
