//! Where a value stands in shell text, and how it is escaped there.
//!
//! A small reader of POSIX shell text (XCU 2.2 quoting, 2.3 tokens, 2.6 expansions, 2.7.4
//! here-documents, and what bash adds) walks once over the text with its gaps. It answers only one
//! question: which quoting holds at each gap? Where sh and bash could disagree, or where the shell
//! would read the value a second time, the answer is [`Place::Unsure`], and the playbook is
//! refused instead of guessed at.

use std::fmt::Write as _;

/// Nested `$( )` and quotes. People write about four.
const MAX_DEPTH: usize = 24;

/// One character of the text, or a gap.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Sym {
    Char(char),
    Gap,
}

/// The quoting at a gap.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Place {
    /// Outside of quotes. `alone`: a word by itself. `quote`: even a harmless value needs quotes
    /// here, because it could join its neighbours to something else.
    Bare { alone: bool, quote: bool },
    /// Inside `'...'`.
    Single,
    /// Inside `"..."`. `after_name`: right behind `$name`, which the value must not lengthen.
    Double { after_name: bool },
    /// In a here-document that ends at the line `delimiter`.
    Heredoc {
        delimiter: String,
        tabs: bool,
        quoted: bool,
    },
    /// Behind `#`.
    Comment,
    /// No escaping is certain to hold; why.
    Unsure(&'static str),
}

/// A gap's place, and whether a newline there would start a waiting here-document.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Gap {
    pub place: Place,
    pub one_line: bool,
}

/// The places of all gaps, in order.
pub(super) fn places(text: &[Sym]) -> Vec<Gap> {
    let mut reader = Reader {
        text,
        pos: 0,
        gaps: Vec::new(),
        doubt: None,
        forbid: None,
        hazard: None,
        waiting: Vec::new(),
        after_name: false,
        depth: 0,
        nested: 0,
    };
    reader.commands(false);
    reader.gaps
}

struct Heredoc {
    delimiter: String,
    tabs: bool,
    quoted: bool,
}

struct Reader<'a> {
    text: &'a [Sym],
    pos: usize,
    gaps: Vec<Gap>,
    /// From here on nothing is certain.
    doubt: Option<&'static str>,
    /// Inside a construct whose values would be read again.
    forbid: Option<&'static str>,
    /// Until the end of this command.
    hazard: Option<&'static str>,
    waiting: Vec<Heredoc>,
    after_name: bool,
    depth: usize,
    nested: usize,
}

/// What is known of the command being read.
#[derive(Default)]
struct Words {
    word: String,
    /// Part of it was quoted, so it is no reserved word.
    quoted: bool,
    started: bool,
    /// A shell was named; its `-c` text is read again.
    shell: bool,
    inner: bool,
    test: bool,
    /// Inside `x=(...)`.
    array: bool,
}

impl Reader<'_> {
    fn peek(&self, ahead: usize) -> Option<Sym> {
        self.text.get(self.pos + ahead).copied()
    }

    fn sees(&self, ahead: usize, c: char) -> bool {
        self.peek(ahead) == Some(Sym::Char(c))
    }

    fn gap(&mut self, place: Place) {
        self.after_name = false;
        let why = self.doubt.or(self.forbid).or(self.hazard);
        let place = why.map_or(place, Place::Unsure);
        self.gaps.push(Gap {
            place,
            one_line: !self.waiting.is_empty(),
        });
        self.pos += 1;
    }

    fn doubt(&mut self, why: &'static str) {
        self.doubt.get_or_insert(why);
    }

    /// Reads something that must be closed. Where the text ends first, its gaps are unsure.
    fn closed(&mut self, read: impl FnOnce(&mut Self) -> bool) {
        let first = self.gaps.len();
        self.depth += 1;
        if self.depth > MAX_DEPTH {
            self.doubt("quotes and substitutions are nested too deeply");
            self.pos = self.text.len().min(self.pos);
            while let Some(sym) = self.peek(0) {
                if sym == Sym::Gap {
                    self.gap(Place::Comment);
                } else {
                    self.pos += 1;
                }
            }
        } else if !read(self) {
            for gap in &mut self.gaps[first..] {
                gap.place = Place::Unsure("a quote or bracket before it is never closed");
            }
        }
        self.depth -= 1;
    }

    fn forbidden(&mut self, why: &'static str, read: impl FnOnce(&mut Self) -> bool) {
        let before = self.forbid;
        self.forbid = before.or(Some(why));
        self.closed(read);
        self.forbid = before;
    }

    /// Commands up to the end, or up to the `)` of a substitution. `true`: it was there.
    fn commands(&mut self, substitution: bool) -> bool {
        let mut words = Words::default();
        let mut parens = 0_usize;
        while let Some(sym) = self.peek(0) {
            let Sym::Char(c) = sym else {
                self.bare_gap();
                words.push('\0');
                continue;
            };
            match c {
                '\'' | '"' | '`' | '$' | '\\' => {
                    self.quoting(c, &mut words);
                    continue;
                }
                '#' if !words.started => {
                    self.comment();
                    continue;
                }
                '<' if self.sees(1, '<') => {
                    self.end_word(&mut words, substitution);
                    self.heredoc_start();
                    continue;
                }
                ')' if substitution && parens == 0 => {
                    self.end_word(&mut words, substitution);
                    self.pos += 1;
                    return true;
                }
                '(' if self.sees(1, '(') => {
                    self.pos += 2;
                    self.forbidden(ARITHMETIC, Self::arithmetic);
                    continue;
                }
                '(' => parens += 1,
                ')' => parens = parens.saturating_sub(1),
                _ => {}
            }
            self.array(c, &mut words);
            self.pos += 1;
            match c {
                ' ' | '\t' | '<' | '>' => self.end_word(&mut words, substitution),
                '\n' | ';' | '&' | '|' | '(' | ')' => {
                    self.end_word(&mut words, substitution);
                    self.end_command(&mut words);
                    if c == '\n' {
                        self.bodies();
                    }
                }
                _ => words.push(c),
            }
        }
        self.end_word(&mut words, substitution);
        !substitution
    }

    /// In `x=(...)` bash gives up at a character that cannot stand there, drops the line, and runs
    /// what follows: the next line of a value, if it is quoted there.
    fn array(&mut self, c: char, words: &mut Words) {
        match c {
            '(' if words.word.ends_with('=') && !words.array => words.array = true,
            ')' => words.array = false,
            '(' | ';' | '&' | '|' | '<' | '>' if words.array => {
                self.doubt("an array before it holds a character that has no place there");
            }
            _ => {}
        }
    }

    /// Steps over something quoted or expanded. `\eval` and `'eval'` are still `eval`.
    fn quoting(&mut self, c: char, words: &mut Words) {
        self.pos += 1;
        let from = self.pos;
        match c {
            '\'' => self.closed(Self::single),
            '"' => self.closed(Self::double),
            '`' => self.forbidden(BACKQUOTE, Self::backquote),
            '$' => self.dollar(false),
            _ => {
                if self.escape() == Some('\n') {
                    return;
                }
            }
        }
        words.started = true;
        words.quoted = true;
        if matches!(c, '`' | '$') {
            words.word.push('\0');
            return;
        }
        for sym in &self.text[from..self.pos] {
            match sym {
                Sym::Char('\'' | '"' | '\\') => {}
                Sym::Char('$' | '`') if c == '"' => words.word.push('\0'),
                Sym::Char(c) => words.word.push(*c),
                Sym::Gap => words.word.push('\0'),
            }
        }
    }

    fn end_word(&mut self, words: &mut Words, substitution: bool) {
        if !words.started {
            return;
        }
        let word = std::mem::take(&mut words.word);
        let quoted = std::mem::take(&mut words.quoted);
        words.started = false;
        if words.inner {
            words.inner = false;
            self.hazard = None;
        }
        self.keyword(&word, quoted, words, substitution);
    }

    /// Words that change how others are read. They count wherever they stand: where a command
    /// begins is hard to know (`>x eval`), and elsewhere they are rare.
    fn keyword(&mut self, word: &str, quoted: bool, words: &mut Words, substitution: bool) {
        let base = word.rsplit('/').next().unwrap_or(word);
        if ["sh", "bash", "dash", "ash", "ksh", "zsh", "su", "busybox"].contains(&base) {
            words.shell = true;
        } else if words.shell && is_c_flag(word) {
            words.inner = true;
            self.hazard = Some("the inner shell would read it a second time");
        }
        // Expansions and gaps (NUL here) may turn out to be empty: `$1eval`, `"$x"eval`.
        let bare = word.replace('\0', "");
        let may_be = |name: &str| bare == name || (word.contains('\0') && bare.ends_with(name));
        match word {
            _ if may_be("eval") => self.hazard = Some("`eval` would read it a second time"),
            _ if may_be("let") => self.hazard = Some(ARITHMETIC),
            "case" if substitution && !quoted => {
                self.doubt("a `case` inside `$( )` stands before it");
            }
            "[[" if !quoted && !words.test => {
                words.test = true;
                if self.arithmetic_test() {
                    self.hazard = Some(ARITHMETIC);
                }
            }
            "]]" if words.test && !quoted => {
                words.test = false;
                self.hazard = None;
            }
            _ => {}
        }
    }

    fn end_command(&mut self, words: &mut Words) {
        if words.test {
            return;
        }
        words.shell = false;
        words.inner = false;
        self.hazard = None;
    }

    /// Whether this `[[ ]]` compares numbers: bash then evaluates its operands, and an
    /// array index in them may hold a command.
    fn arithmetic_test(&self) -> bool {
        let rest: String = self.text[self.pos..]
            .iter()
            .take(4096)
            .map(|sym| if let Sym::Char(c) = sym { *c } else { 'x' })
            .collect();
        let inside = rest.split("]]").next().unwrap_or("");
        inside
            .split_whitespace()
            .any(|w| ["-eq", "-ne", "-lt", "-le", "-gt", "-ge", "-v"].contains(&w))
    }

    fn bare_gap(&mut self) {
        let before = self.pos.checked_sub(1).map(|i| self.text[i]);
        let joined = before == Some(Sym::Char('\n'))
            && self.pos >= 2
            && self.text[self.pos - 2] == Sym::Char('\\');
        let after = self.peek(1);
        let edge = |sym: Option<Sym>| match sym {
            None => true,
            Some(Sym::Gap) => false,
            Some(Sym::Char(c)) => c.is_whitespace() || ";|&()".contains(c),
        };
        let sticky = |sym: Option<Sym>, more: &str| match sym {
            None => false,
            Some(Sym::Gap) => true,
            Some(Sym::Char(c)) => c.is_ascii_lowercase() || more.contains(c),
        };
        let quote = std::mem::take(&mut self.after_name)
            || joined
            || sticky(before, "~")
            || sticky(after, "<>(");
        let alone = edge(before) && edge(after) && !joined && !self.redirected();
        self.gap(Place::Bare { alone, quote });
    }

    /// Whether this is the file of a redirection, which is one word.
    fn redirected(&self) -> bool {
        let blank = |sym: &&Sym| matches!(sym, Sym::Char(' ' | '\t'));
        let before = self.text[..self.pos].iter().rev().find(|sym| !blank(sym));
        matches!(before, Some(Sym::Char('<' | '>')))
    }

    /// Behind a backslash: steps over what it escapes, and returns it.
    fn escape(&mut self) -> Option<char> {
        match self.peek(0) {
            Some(Sym::Gap) => {
                self.gap(Place::Unsure(
                    "a backslash right before it escapes its first character",
                ));
                None
            }
            Some(Sym::Char(c)) => {
                self.pos += 1;
                Some(c)
            }
            None => None,
        }
    }

    fn single(&mut self) -> bool {
        while let Some(sym) = self.peek(0) {
            match sym {
                Sym::Gap => self.gap(Place::Single),
                Sym::Char(c) => {
                    self.pos += 1;
                    if c == '\'' {
                        return true;
                    }
                }
            }
        }
        false
    }

    fn double(&mut self) -> bool {
        while let Some(sym) = self.peek(0) {
            let Sym::Char(c) = sym else {
                let after_name = std::mem::take(&mut self.after_name);
                self.gap(Place::Double { after_name });
                continue;
            };
            self.pos += 1;
            match c {
                '"' => return true,
                '\\' => {
                    self.escape();
                }
                '`' => self.forbidden(BACKQUOTE, Self::backquote),
                '$' => self.dollar(true),
                _ => {}
            }
        }
        false
    }

    fn backquote(&mut self) -> bool {
        while let Some(sym) = self.peek(0) {
            match sym {
                Sym::Gap => self.gap(Place::Comment),
                Sym::Char(c) => {
                    self.pos += 1;
                    match c {
                        '`' => return true,
                        '\\' => {
                            self.escape();
                        }
                        _ => {}
                    }
                }
            }
        }
        false
    }

    fn comment(&mut self) {
        while let Some(sym) = self.peek(0) {
            match sym {
                Sym::Gap => self.gap(Place::Comment),
                Sym::Char('\n') => return,
                Sym::Char(_) => self.pos += 1,
            }
        }
    }

    /// Behind a `$`.
    fn dollar(&mut self, quoted: bool) {
        let Some(sym) = self.peek(0) else { return };
        let Sym::Char(c) = sym else {
            return self.gap(Place::Unsure(
                "a `$` right before it would make it a variable's name",
            ));
        };
        match c {
            '(' if self.sees(1, '(') => {
                self.pos += 2;
                self.forbidden(ARITHMETIC, Self::arithmetic);
            }
            '(' => {
                self.pos += 1;
                self.substitution();
            }
            '{' => {
                self.pos += 1;
                self.forbidden(PARAMETER, |reader| reader.parameter(quoted));
            }
            '[' => self.doubt("`$[` before it is arithmetic to bash and plain text to sh"),
            '\'' if !quoted => {
                self.pos += 1;
                self.forbidden("`$'...'` is not the same in every shell", Self::ansi_c);
            }
            '0'..='9' | '$' | '?' | '!' | '#' | '@' | '*' | '-' => {
                self.pos += 1;
                self.after_name = c.is_ascii_digit() && self.peek(0) == Some(Sym::Gap);
            }
            _ if c.is_ascii_alphabetic() || c == '_' => {
                while matches!(self.peek(0), Some(Sym::Char(c)) if c.is_ascii_alphanumeric() || c == '_')
                {
                    self.pos += 1;
                }
                self.after_name = self.peek(0) == Some(Sym::Gap);
            }
            _ => {}
        }
    }

    fn substitution(&mut self) {
        let hazard = self.hazard;
        let waiting = std::mem::take(&mut self.waiting);
        if !waiting.is_empty() {
            self.doubt("a here-document before it has not begun yet");
        }
        self.nested += 1;
        // What `eval` would read again stays dangerous inside its substitutions.
        let forbid = self.forbid;
        self.forbid = forbid.or(hazard);
        self.closed(|reader| reader.commands(true));
        self.forbid = forbid;
        self.nested -= 1;
        if !self.waiting.is_empty() {
            self.doubt("a here-document inside `$( )` before it is not finished there");
        }
        self.waiting = waiting;
        self.hazard = hazard;
    }

    fn ansi_c(&mut self) -> bool {
        while let Some(sym) = self.peek(0) {
            match sym {
                Sym::Gap => self.gap(Place::Comment),
                Sym::Char(c) => {
                    self.pos += 1;
                    match c {
                        '\'' => return true,
                        '\\' if self.sees(0, '\'') => {
                            self.doubt("`$'...'` before it is not the same in every shell")
                        }
                        _ => {}
                    }
                }
            }
        }
        false
    }

    fn arithmetic(&mut self) -> bool {
        let mut parens = 0_usize;
        while let Some(sym) = self.peek(0) {
            let Sym::Char(c) = sym else {
                self.gap(Place::Comment);
                continue;
            };
            self.pos += 1;
            match c {
                '(' => parens += 1,
                ')' if parens > 0 => parens -= 1,
                ')' if self.sees(0, ')') => {
                    self.pos += 1;
                    return true;
                }
                ')' => {
                    self.doubt("`((` before it may be arithmetic or two subshells: put a space between the brackets");
                    return true;
                }
                '\'' => self.doubt("a quote inside arithmetic stands before it"),
                '"' => self.closed(Self::double),
                '`' => self.closed(Self::backquote),
                '$' => self.dollar(true),
                '\\' => {
                    self.escape();
                }
                _ => {}
            }
        }
        false
    }

    fn parameter(&mut self, quoted: bool) -> bool {
        while let Some(sym) = self.peek(0) {
            let Sym::Char(c) = sym else {
                self.gap(Place::Comment);
                continue;
            };
            self.pos += 1;
            match c {
                '}' => return true,
                '\'' if quoted => {
                    self.doubt("`'` inside `\"${...}\"` before it is not the same in every shell")
                }
                '\'' => self.closed(Self::single),
                '"' => self.closed(Self::double),
                '`' => self.closed(Self::backquote),
                '$' => self.dollar(quoted),
                '\\' => {
                    self.escape();
                }
                _ => {}
            }
        }
        false
    }

    /// At `<<`: a here-document's delimiter, or bash's `<<<`.
    fn heredoc_start(&mut self) {
        self.pos += 2;
        if self.sees(0, '<') {
            self.pos += 1;
            return;
        }
        let tabs = self.sees(0, '-');
        self.pos += usize::from(tabs);
        while self.sees(0, ' ') || self.sees(0, '\t') {
            self.pos += 1;
        }
        let mut delimiter = String::new();
        let mut quoted = false;
        let mut quote = None;
        while let Some(sym) = self.peek(0) {
            let Sym::Char(c) = sym else {
                self.doubt(
                    "it stands in or behind a here-document's delimiter that is not plain text",
                );
                return;
            };
            match (c, quote) {
                ('\n', Some(_)) | ('$' | '`', None) => {
                    self.doubt("a here-document's delimiter before it is not plain text");
                    return;
                }
                (_, Some(open)) if c == open => quote = None,
                ('\'' | '"', None) => {
                    quote = Some(c);
                    quoted = true;
                }
                ('\\', _) => {
                    quoted = true;
                    self.doubt("a here-document's delimiter before it holds a backslash: quote it as 'EOF'");
                }
                (_, None) if c.is_whitespace() || ";|&()<>".contains(c) => break,
                _ => delimiter.push(c),
            }
            self.pos += 1;
        }
        if self.nested > 0 {
            self.doubt("a here-document inside `$( )` stands before it");
        }
        self.waiting.push(Heredoc {
            delimiter,
            tabs,
            quoted,
        });
    }

    /// Behind a newline: the bodies that have waited for it.
    fn bodies(&mut self) {
        for heredoc in std::mem::take(&mut self.waiting) {
            while self.pos < self.text.len() && !self.delimiter_line(&heredoc) {
                self.body_line(&heredoc);
            }
        }
    }

    fn delimiter_line(&mut self, heredoc: &Heredoc) -> bool {
        let mut at = self.pos;
        while heredoc.tabs && self.text.get(at) == Some(&Sym::Char('\t')) {
            at += 1;
        }
        for c in heredoc.delimiter.chars() {
            if self.text.get(at) != Some(&Sym::Char(c)) {
                return false;
            }
            at += 1;
        }
        match self.text.get(at) {
            None => self.pos = at,
            Some(Sym::Char('\n')) => self.pos = at + 1,
            Some(_) => return false,
        }
        true
    }

    fn body_line(&mut self, heredoc: &Heredoc) {
        while let Some(sym) = self.peek(0) {
            let Sym::Char(c) = sym else {
                self.body_gap(heredoc);
                continue;
            };
            self.pos += 1;
            match c {
                '\n' => return,
                _ if heredoc.quoted => {}
                '\\' if self.sees(0, '\n') => {
                    self.doubt("a line of the here-document before it is continued by a backslash")
                }
                '\\' => {
                    self.escape();
                }
                '`' | '$' => self.body_expansion(c),
                _ => {}
            }
        }
    }

    fn body_gap(&mut self, heredoc: &Heredoc) {
        let place = if std::mem::take(&mut self.after_name) {
            Place::Unsure("`$name` right before it would be lengthened: write `${name}`")
        } else {
            Place::Heredoc {
                delimiter: heredoc.delimiter.clone(),
                tabs: heredoc.tabs,
                quoted: heredoc.quoted,
            }
        };
        self.gap(place);
    }

    fn body_expansion(&mut self, c: char) {
        let from = self.pos;
        let before = self.forbid;
        self.forbid = before.or(Some("it stands in a substitution inside a here-document"));
        if c == '`' {
            self.closed(Self::backquote);
        } else {
            self.dollar(true);
        }
        self.forbid = before;
        if self.text[from..self.pos]
            .iter()
            .any(|s| matches!(s, Sym::Char('\n' | '"')))
        {
            self.doubt("a substitution in the here-document before it holds a quote or a newline");
        }
    }
}

const ARITHMETIC: &str = "arithmetic would evaluate it, commands included";
const BACKQUOTE: &str = "backquotes would read it a second time: use `$( )`";
const PARAMETER: &str = "inside `${...}` its quoting is not the same in every shell";

impl Words {
    fn push(&mut self, c: char) {
        self.started = true;
        self.word.push(c);
    }
}

fn is_c_flag(word: &str) -> bool {
    word.strip_prefix('-')
        .is_some_and(|flags| flags.contains('c') && flags.chars().all(|c| c.is_ascii_alphabetic()))
}

/// Whether a shell of this name quotes as POSIX says.
pub(super) fn is_posix(program: &str) -> bool {
    let base = program.rsplit('/').next().unwrap_or(program);
    ["sh", "bash", "dash", "ash", "ksh", "mksh", "zsh", "busybox"].contains(&base)
}

/// A word outside of quotes.
pub(super) fn bare(value: &str, alone: bool, quote: bool) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "_./:%-".contains(c);
    let dots = value.starts_with('.') || value.ends_with('.') || value.contains("..");
    let harmless = !value.is_empty() && value.chars().all(plain) && !dots;
    if harmless && !quote && !(alone && RESERVED.contains(&value)) {
        return value.to_owned();
    }
    format!("'{}'", single(value))
}

/// Words that begin or end something when a command stands there (XCU 2.4, and bash's own).
const RESERVED: [&str; 18] = [
    "if", "then", "else", "elif", "fi", "do", "done", "case", "esac", "while", "until", "for",
    "in", "function", "select", "time", "coproc", "end",
];

/// Inside `'...'`.
pub(super) fn single(value: &str) -> String {
    value.replace('\'', r"'\''")
}

/// Inside `"..."`. `!` leaves the quotes for a moment: a backslash before it would stay in the
/// value, and without one an interactive bash would expand it.
pub(super) fn double(value: &str, after_name: bool) -> String {
    let mut out = String::from(if after_name { "\"\"" } else { "" });
    for c in value.chars() {
        match c {
            '\\' | '$' | '`' | '"' => {
                let _ = write!(out, "\\{c}");
            }
            '!' => out.push_str("\"'!'\""),
            _ => out.push(c),
        }
    }
    out
}

/// In a here-document whose delimiter is not quoted.
pub(super) fn heredoc(value: &str) -> String {
    let mut out = String::new();
    for c in value.chars() {
        if matches!(c, '\\' | '$' | '`') {
            out.push('\\');
        }
        out.push(c);
    }
    out
}

/// In a comment, which has no meaning: only a new line could end it.
pub(super) fn comment(value: &str) -> String {
    value.replace(['\n', '\r'], " ")
}
