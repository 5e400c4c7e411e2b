//! A YAML inventory as a JSON Schema (draft-07), for editors that complete and check it.

use serde_json::{Map, Value, json};

use crate::target::RESERVED;

/// A key: its name, what it means, what it takes.
type Key = (&'static str, &'static str, fn() -> Value);

const FILE: &[Key] = &[
    (
        "hosts",
        "Hosts: a mapping of names or ranges such as `web[01-12]` to their settings, or a list.",
        hosts,
    ),
    (
        "groups",
        "Groups: a mapping of names to their hosts, children and settings.",
        groups,
    ),
    ("vars", "Values of all hosts.", vars),
];

const HOST: &[Key] = &[
    ("address", "Where it is, if not under its name.", text),
    ("port", "Its SSH server's port.", port),
    ("user", "The account.", text),
    ("identity", "Private key files.", identity),
    (
        "connection",
        "`local`: commands run on this machine.",
        connection,
    ),
    (
        "vars",
        "Values of this host; they win over its groups'.",
        vars,
    ),
];

const GROUP: &[Key] = &[
    ("hosts", "Its hosts: names, ranges and patterns.", hosts),
    (
        "children",
        "Other groups whose hosts are its own as well.",
        children,
    ),
    ("vars", "Values of its hosts.", vars),
    ("port", "Its hosts' port.", port),
    ("user", "The account on its hosts.", text),
    ("identity", "Private key files for its hosts.", identity),
    (
        "connection",
        "`local`: commands run on this machine.",
        connection,
    ),
];

/// The schema.
#[must_use]
pub fn schema() -> Value {
    let mut schema = object(FILE);
    if let Some(schema) = schema.as_object_mut() {
        schema.insert(
            "$schema".into(),
            json!("http://json-schema.org/draft-07/schema#"),
        );
        schema.insert("title".into(), json!("fanrun inventory"));
    }
    schema
}

fn object(keys: &[Key]) -> Value {
    let mut properties = Map::new();
    for (name, about, shape) in keys {
        let mut shape = shape();
        if let Some(shape) = shape.as_object_mut() {
            shape.insert("description".into(), json!(about));
        }
        properties.insert((*name).to_owned(), shape);
    }
    json!({"type": "object", "properties": properties, "additionalProperties": false})
}

fn or_nothing(shape: Value) -> Value {
    json!({"anyOf": [{"type": "null"}, shape]})
}

fn text() -> Value {
    json!({"type": ["string", "number", "boolean"], "minLength": 1})
}

fn port() -> Value {
    json!({"type": "integer", "minimum": 1, "maximum": 65_535})
}

fn identity() -> Value {
    json!({"anyOf": [text(), {"type": "array", "items": text(), "maxItems": 64}]})
}

fn connection() -> Value {
    json!({"enum": ["ssh", "local"]})
}

fn vars() -> Value {
    let name = json!({"pattern": "^[A-Za-z_][A-Za-z0-9_]*$", "not": {"enum": RESERVED}});
    or_nothing(json!({"type": "object", "propertyNames": name}))
}

fn hosts() -> Value {
    let map = json!({"type": "object", "additionalProperties": or_nothing(object(HOST))});
    or_nothing(json!({"anyOf": [map, {"type": "array", "items": text()}, {"type": "string"}]}))
}

fn children() -> Value {
    json!({"anyOf": [{"type": "null"}, {"type": "string"}, {"type": "array", "items": text()}]})
}

fn groups() -> Value {
    or_nothing(json!({"type": "object", "additionalProperties": or_nothing(object(GROUP))}))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::super::node::{Kind, Node, parse};
    use super::super::yaml;
    use super::*;
    use crate::diagnostic::Source;

    fn as_json(node: &Node) -> Value {
        match &node.kind {
            Kind::Null => Value::Null,
            Kind::Bool(value) => (*value).into(),
            Kind::Int(value) => (*value).into(),
            Kind::Uint(value) => (*value).into(),
            Kind::Float(value) => (*value).into(),
            Kind::Text(value) => value.as_str().into(),
            Kind::List(items) => items.iter().map(as_json).collect(),
            Kind::Map(items) => {
                let key = |node: &Node| as_json(node).as_str().unwrap_or("1").to_owned();
                Value::Object(items.iter().map(|(k, v)| (key(k), as_json(v))).collect())
            }
        }
    }

    #[test]
    fn the_keys_are_those_of_the_parser() {
        let names = |keys: &[Key]| keys.iter().map(|key| key.0).collect::<Vec<_>>();
        assert_eq!(names(FILE), yaml::FILE_KEYS);
        assert_eq!(names(HOST), yaml::HOST_KEYS);
        assert_eq!(names(GROUP), yaml::GROUP_KEYS);
    }

    #[test]
    fn both_come_to_the_same_verdict() {
        let validator = jsonschema::draft7::new(&schema()).unwrap();
        for (text, good) in [
            ("hosts: [a, b]\n", true),
            ("hosts: web1\n", true),
            (
                "hosts:\n  web[01-12]: {user: deploy, port: 2222}\n  db1: {address: 10.0.0.7, vars: {role: x}}\n  c:\n",
                true,
            ),
            (
                "hosts: [a]\ngroups:\n  web: {hosts: ['a*'], vars: {tier: 1}}\n  all_of: {children: [web], port: 22}\n",
                true,
            ),
            ("vars: {site: eu}\nhosts: {a: {connection: local}}\n", true),
            ("hosts: {a: {identity: [k, l]}}\ngroups:\n", true),
            ("hosts: 5\n", false),
            ("hots: [a]\n", false),
            ("hosts: {a: {prot: 22}}\n", false),
            ("hosts: {a: {port: 0}}\n", false),
            ("hosts: {a: {port: '22'}}\n", false),
            ("hosts: {a: {port: 65536}}\n", false),
            ("hosts: {a: b}\n", false),
            ("hosts: {a: {connection: telnet}}\n", false),
            ("hosts: {a: {vars: {my-var: 1}}}\n", false),
            ("hosts: {a: {vars: {item: 1}}}\n", false),
            ("hosts: [a]\ngroups: [web]\n", false),
            ("hosts: [a]\ngroups: {web: {host: [a]}}\n", false),
            ("hosts: {a: {user: [x]}}\n", false),
            ("[a, b]\n", false),
        ] {
            let source = Arc::new(Source {
                path: "hosts.yml".into(),
                text: text.into(),
            });
            let ours = yaml::read(&source).errors.is_empty();
            assert_eq!(ours, good, "the parser: {text}");
            let json = as_json(&parse(&source).unwrap());
            assert_eq!(validator.is_valid(&json), good, "the schema: {text}");
        }
    }
}
