//! The few styles there are, and a colour for every host.

use anstyle::{AnsiColor, Color, Style};

/// Styles, or nothing where there is no colour.
#[derive(Debug, Clone, Copy)]
pub(super) struct Styles {
    on: bool,
}

/// What a piece of text is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Good,
    Bad,
    Warning,
    Heading,
    Dim,
    Stderr,
}

/// Colours that can be read on dark and on light backgrounds.
const HOSTS: [AnsiColor; 6] = [
    AnsiColor::Cyan,
    AnsiColor::Green,
    AnsiColor::Magenta,
    AnsiColor::Blue,
    AnsiColor::Yellow,
    AnsiColor::BrightBlack,
];

impl Styles {
    pub(super) fn new(on: bool) -> Self {
        Self { on }
    }

    /// `text` in its style.
    pub(super) fn paint(self, kind: Kind, text: &str) -> String {
        let style = Style::new();
        let style = match kind {
            Kind::Good => style.fg_color(Some(Color::Ansi(AnsiColor::Green))),
            Kind::Bad => style.fg_color(Some(Color::Ansi(AnsiColor::Red))).bold(),
            Kind::Warning => style.fg_color(Some(Color::Ansi(AnsiColor::Yellow))),
            Kind::Heading => style.bold(),
            Kind::Dim => style.dimmed(),
            Kind::Stderr => style.fg_color(Some(Color::Ansi(AnsiColor::Yellow))),
        };
        self.wrap(style, text)
    }

    /// A host's name in the colour that it always has.
    pub(super) fn host(self, name: &str, shown: &str) -> String {
        // FNV-1a: the same on every machine and in every version.
        let hash = name.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
            (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
        });
        let colour = HOSTS[usize::try_from(hash % HOSTS.len() as u64).unwrap_or(0)];
        self.wrap(Style::new().fg_color(Some(Color::Ansi(colour))), shown)
    }

    fn wrap(self, style: Style, text: &str) -> String {
        if self.on {
            format!("{style}{text}{style:#}")
        } else {
            text.to_owned()
        }
    }
}
