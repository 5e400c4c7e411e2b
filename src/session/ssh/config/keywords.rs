//! Every keyword that some OpenSSH client knows: what its value may be, and what it means here.
//!
//! Names, values and defaults are those of readconf.c up to OpenSSH 10.0, with the patches of
//! Debian (`GSSAPI...`) and of macOS (`UseKeychain`, there only). A keyword that is not in this
//! table is a mistake, as it is for ssh.

/// One keyword.
#[derive(Debug)]
pub(super) struct Keyword {
    /// In lower case.
    pub(super) name: &'static str,
    pub(super) value: Value,
    pub(super) meaning: Meaning,
}

/// What may stand behind a keyword.
#[derive(Debug, Clone, Copy)]
pub(super) enum Value {
    /// One of these, in any case.
    Choice(&'static [&'static str]),
    /// Exactly one word.
    Word,
    /// One word or more.
    Words,
    /// As [`Value::Words`], and `none` stands alone.
    WordsOrNone,
    /// The rest of the line, as it is.
    Rest,
    Time,
    Number,
    Port,
    /// At least one word and at most this many.
    UpTo(usize),
    /// A time or one of these, in any case; a second word is a time.
    TimeOr(&'static [&'static str], usize),
    /// A path, `$VARIABLE` or `${VARIABLE}`.
    Agent,
    /// A listening end, and a target if it has to have one.
    Forward {
        target: bool,
    },
    SendEnv,
    SetEnv,
    Escape,
    Mask,
}

/// What ignoring a keyword would mean.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Meaning {
    Used(Use),
    /// ssh itself does not obey it any more.
    Harmless,
    /// It changes how ssh works and hardly what its user gets: told where the user wrote it, unless
    /// its value is one of these, and not where a system's file says it to everybody.
    Mild(&'static [&'static str]),
    /// It changes something, unless its value is one of these, in any case.
    Unless(&'static [&'static str]),
    Warned,
    /// Without it another machine would be reached, or a key be trusted that must not be.
    Refused(&'static str),
}

/// Keywords that are followed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Use {
    ClearAllForwardings,
    CanonicalizeHostname,
    ConnectTimeout,
    GlobalKnownHosts,
    HashKnownHosts,
    Host,
    HostKeyAlias,
    HostName,
    IdentitiesOnly,
    IdentityAgent,
    IdentityFile,
    IgnoreUnknown,
    Include,
    Match,
    PermitLocalCommand,
    Port,
    SendEnv,
    StrictHostKeyChecking,
    User,
    UserKnownHosts,
}

const FLAG: Value = Value::Choice(&["yes", "no", "true", "false"]);
const ASK: Value = Value::Choice(&["yes", "no", "true", "false", "ask"]);
const NO: &[&str] = &["no", "false"];
const NONE: &[&str] = &["none"];
const YES: &[&str] = &["yes", "true"];
const DIRECT: &str = "connecting directly would reach the wrong machine";
const REVOKED: &str = "a key that it revokes would be trusted";
const SHUT: &str = "ssh would refuse to connect";
const LEVELS: &[&str] = &[
    "quiet", "fatal", "error", "info", "verbose", "debug", "debug1", "debug2", "debug3",
];
const FACILITIES: &[&str] = &[
    "daemon", "user", "auth", "authpriv", "local0", "local1", "local2", "local3", "local4",
    "local5", "local6", "local7",
];

use Meaning::{Harmless, Mild, Refused, Unless, Used, Warned};

const fn is(name: &'static str, value: Value, meaning: Meaning) -> Keyword {
    Keyword {
        name,
        value,
        meaning,
    }
}

/// The keywords. One that wins by being first is told from others by its place here.
pub(super) const KEYWORDS: &[Keyword] = &[
    is(
        "canonicalizehostname",
        Value::Choice(&["yes", "no", "true", "false", "always"]),
        Used(Use::CanonicalizeHostname),
    ),
    is("clearallforwardings", FLAG, Used(Use::ClearAllForwardings)),
    is("connecttimeout", Value::Time, Used(Use::ConnectTimeout)),
    is(
        "globalknownhostsfile",
        Value::WordsOrNone,
        Used(Use::GlobalKnownHosts),
    ),
    is("hashknownhosts", FLAG, Used(Use::HashKnownHosts)),
    is("host", Value::Words, Used(Use::Host)),
    is("hostkeyalias", Value::Word, Used(Use::HostKeyAlias)),
    is("hostname", Value::Word, Used(Use::HostName)),
    is("identitiesonly", FLAG, Used(Use::IdentitiesOnly)),
    is("identityagent", Value::Agent, Used(Use::IdentityAgent)),
    is("identityfile", Value::Word, Used(Use::IdentityFile)),
    is("ignoreunknown", Value::Word, Used(Use::IgnoreUnknown)),
    is("include", Value::Words, Used(Use::Include)),
    is("match", Value::Rest, Used(Use::Match)),
    is("permitlocalcommand", FLAG, Used(Use::PermitLocalCommand)),
    is("port", Value::Port, Used(Use::Port)),
    is("sendenv", Value::SendEnv, Used(Use::SendEnv)),
    is(
        "stricthostkeychecking",
        Value::Choice(&["yes", "no", "true", "false", "ask", "off", "accept-new"]),
        Used(Use::StrictHostKeyChecking),
    ),
    is("user", Value::Word, Used(Use::User)),
    is(
        "userknownhostsfile",
        Value::WordsOrNone,
        Used(Use::UserKnownHosts),
    ),
    is("proxycommand", Value::Rest, Refused(DIRECT)),
    is("proxyjump", Value::Rest, Refused(DIRECT)),
    is("revokedhostkeys", Value::Word, Refused(REVOKED)),
    is("refuseconnection", Value::Word, Refused(SHUT)),
    is(
        "addressfamily",
        Value::Choice(&["any", "inet", "inet6"]),
        Unless(&["any"]),
    ),
    is("batchmode", FLAG, Unless(NO)),
    is("canonicalizepermittedcnames", Value::Words, Unless(NONE)),
    is("checkhostip", FLAG, Unless(NO)),
    is("forkafterauthentication", FLAG, Unless(NO)),
    is("forwardagent", Value::Agent, Unless(NO)),
    is("forwardx11", FLAG, Unless(NO)),
    is("kbdinteractiveauthentication", FLAG, Unless(YES)),
    is("knownhostscommand", Value::Rest, Unless(NONE)),
    is("localcommand", Value::Rest, Unless(NONE)),
    is("nohostauthenticationforlocalhost", FLAG, Unless(NO)),
    is("passwordauthentication", FLAG, Unless(YES)),
    is("pkcs11provider", Value::Word, Unless(NONE)),
    is(
        "pubkeyauthentication",
        Value::Choice(&["yes", "no", "true", "false", "unbound", "host-bound"]),
        Unless(&["yes", "true", "unbound", "host-bound"]),
    ),
    is("remotecommand", Value::Rest, Unless(NONE)),
    is(
        "requesttty",
        Value::Choice(&["yes", "no", "true", "false", "auto", "force"]),
        Unless(&["no", "false", "auto"]),
    ),
    is("requiredrsasize", Value::Number, Unless(&["1024"])),
    is(
        "securitykeyprovider",
        Value::Word,
        Unless(&["internal", "none"]),
    ),
    is(
        "sessiontype",
        Value::Choice(&["none", "subsystem", "default"]),
        Unless(&["default"]),
    ),
    is(
        "tunnel",
        Value::Choice(&["yes", "no", "true", "false", "ethernet", "point-to-point"]),
        Unless(NO),
    ),
    is("verifyhostkeydns", ASK, Unless(NO)),
    is("versionaddendum", Value::Rest, Unless(NONE)),
    is("bindaddress", Value::Word, Warned),
    is("bindinterface", Value::Word, Warned),
    is("certificatefile", Value::Word, Warned),
    is("channeltimeout", Value::Words, Warned),
    is("ciphers", Value::Word, Warned),
    is("dynamicforward", Value::Forward { target: false }, Warned),
    is("hostkeyalgorithms", Value::Word, Warned),
    is("kbdinteractivedevices", Value::Word, Warned),
    is("kexalgorithms", Value::Word, Warned),
    is("localforward", Value::Forward { target: true }, Warned),
    is("macs", Value::Word, Warned),
    is("preferredauthentications", Value::Word, Warned),
    is("pubkeyacceptedalgorithms", Value::Word, Warned),
    is("remoteforward", Value::Forward { target: false }, Warned),
    is("setenv", Value::SetEnv, Warned),
    is(
        "addkeystoagent",
        Value::TimeOr(&["yes", "no", "true", "false", "ask", "confirm"], 2),
        Mild(NO),
    ),
    is("canonicaldomains", Value::WordsOrNone, Mild(NONE)),
    is("canonicalizefallbacklocal", FLAG, Mild(YES)),
    is("canonicalizemaxdots", Value::Number, Mild(&["1"])),
    is("casignaturealgorithms", Value::Word, Mild(&[])),
    is("compression", Value::Choice(&["yes", "no"]), Mild(NO)),
    is("connectionattempts", Value::Number, Mild(&["1"])),
    is(
        "controlmaster",
        Value::Choice(&["yes", "no", "true", "false", "auto", "ask", "autoask"]),
        Mild(NO),
    ),
    is("controlpath", Value::Word, Mild(NONE)),
    is(
        "controlpersist",
        Value::TimeOr(&["yes", "no", "true", "false"], 1),
        Mild(NO),
    ),
    is("enableescapecommandline", FLAG, Mild(NO)),
    is("enablesshkeysign", FLAG, Mild(NO)),
    is("escapechar", Value::Escape, Mild(&["~"])),
    is("exitonforwardfailure", FLAG, Mild(NO)),
    is(
        "fingerprinthash",
        Value::Choice(&["md5", "sha1", "sha256", "sha384", "sha512"]),
        Mild(&["sha256"]),
    ),
    is("forwardx11timeout", Value::Time, Mild(&[])),
    is("forwardx11trusted", FLAG, Mild(NO)),
    is("gatewayports", FLAG, Mild(NO)),
    is("gssapiauthentication", FLAG, Mild(NO)),
    is("gssapiclientidentity", Value::Word, Mild(&[])),
    is("gssapidelegatecredentials", FLAG, Mild(NO)),
    is("gssapikexalgorithms", Value::Word, Mild(&[])),
    is("gssapikeyexchange", FLAG, Mild(NO)),
    is("gssapirenewalforcesrekey", FLAG, Mild(NO)),
    is("gssapiserveridentity", Value::Word, Mild(&[])),
    is("gssapitrustdns", FLAG, Mild(NO)),
    is("hostbasedacceptedalgorithms", Value::Word, Mild(&[])),
    is("hostbasedauthentication", FLAG, Mild(NO)),
    is("ipqos", Value::UpTo(2), Mild(&[])),
    is("loglevel", Value::Choice(LEVELS), Mild(&["info"])),
    is("logverbose", Value::WordsOrNone, Mild(NONE)),
    is("numberofpasswordprompts", Value::Number, Mild(&["3"])),
    is("obscurekeystroketiming", Value::Word, Mild(YES)),
    is("permitremoteopen", Value::Words, Mild(&[])),
    is("proxyusefdpass", FLAG, Mild(NO)),
    is("rekeylimit", Value::UpTo(2), Mild(&[])),
    is("serveralivecountmax", Value::Number, Mild(&["3"])),
    is("serveraliveinterval", Value::Time, Mild(&["0"])),
    is("stdinnull", FLAG, Mild(NO)),
    is("streamlocalbindmask", Value::Mask, Mild(&[])),
    is("streamlocalbindunlink", FLAG, Mild(NO)),
    is("syslogfacility", Value::Choice(FACILITIES), Mild(&["user"])),
    is("tag", Value::Word, Mild(&[])),
    is("tcpkeepalive", FLAG, Mild(YES)),
    is("tunneldevice", Value::Word, Mild(&[])),
    is("updatehostkeys", ASK, Mild(NO)),
    is("visualhostkey", FLAG, Mild(NO)),
    is("warnweakcrypto", Value::Words, Mild(&[])),
    is("xauthlocation", Value::Word, Mild(&[])),
    // What ssh reads and no longer obeys.
    is("afstokenpassing", Value::Rest, Harmless),
    is("cipher", Value::Rest, Harmless),
    is("compressionlevel", Value::Rest, Harmless),
    is("fallbacktorsh", Value::Rest, Harmless),
    is("globalknownhostsfile2", Value::Rest, Harmless),
    is("kerberosauthentication", Value::Rest, Harmless),
    is("kerberostgtpassing", Value::Rest, Harmless),
    is("protocol", Value::Rest, Harmless),
    is("rhostsauthentication", Value::Rest, Harmless),
    is("rhostsrsaauthentication", Value::Rest, Harmless),
    is("rsaauthentication", Value::Rest, Harmless),
    is("useblacklistedkeys", Value::Rest, Harmless),
    is("useprivilegedport", Value::Rest, Harmless),
    is("userknownhostsfile2", Value::Rest, Harmless),
    is("useroaming", Value::Rest, Harmless),
    is("usersh", Value::Rest, Harmless),
];

/// Old names.
const ALIASES: &[(&str, &str)] = &[
    (
        "challengeresponseauthentication",
        "kbdinteractiveauthentication",
    ),
    ("dsaauthentication", "pubkeyauthentication"),
    ("hostbasedkeytypes", "hostbasedacceptedalgorithms"),
    ("identityfile2", "identityfile"),
    ("keepalive", "tcpkeepalive"),
    ("protocolkeepalives", "serveraliveinterval"),
    ("pubkeyacceptedkeytypes", "pubkeyacceptedalgorithms"),
    ("setuptimeout", "serveraliveinterval"),
    ("skeyauthentication", "kbdinteractiveauthentication"),
    ("smartcarddevice", "pkcs11provider"),
    ("tisauthentication", "kbdinteractiveauthentication"),
];

/// The place of a keyword in [`KEYWORDS`].
pub(super) fn find(written: &str) -> Option<usize> {
    let name = written.to_ascii_lowercase();
    let alias = ALIASES.iter().find(|(old, _)| *old == name);
    let name = alias.map_or(name.as_str(), |(_, new)| new);
    if name == "usekeychain" && cfg!(target_os = "macos") {
        return find("addkeystoagent");
    }
    KEYWORDS.iter().position(|keyword| keyword.name == name)
}

/// A keyword that looks like this one.
pub(super) fn similar(written: &str) -> Option<&'static str> {
    let name = written.to_ascii_lowercase();
    KEYWORDS
        .iter()
        .map(|keyword| {
            (
                strsim::damerau_levenshtein(keyword.name, &name),
                keyword.name,
            )
        })
        .min()
        .filter(|(distance, _)| *distance <= 2)
        .map(|(_, name)| name)
}
