//! What is said of one option.

/// What kind of value an option takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OptionKind {
    /// true or false (also yes/no, on/off).
    Switch,
    /// Any text.
    Text,
    /// An S3 endpoint.
    Endpoint,
    /// A snapshot to restore. An empty value is an error in files and variables, too: it must never mean "none".
    Snapshot,
    /// A path; relative to the working directory.
    Path,
    /// A TCP port, 1 to 65535.
    Port,
    /// A whole number of milliseconds.
    Millis,
    /// A number of bytes, also with KiB, MiB, GiB, TiB.
    Bytes,
    /// An IP address.
    Address,
    /// A DNS label (RFC 1123).
    DnsLabel,
    /// A DNS name or an IP address.
    HostName,
    /// `key=value`.
    KeyValue,
    /// When snapshots are taken.
    Cron,
    /// First part of a snapshot's name.
    SnapshotName,
    /// A whole number.
    Count,
    /// A whole number that may be large.
    Number,
    /// A length of time.
    Duration,
    /// Rules of retention.
    Retention,
    /// How to compress.
    Compression,
    /// One of a few words.
    Choice(&'static [&'static str]),
}

/// How many values an option accepts, and how a text with several of them is split.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Arity {
    /// One.
    One,
    /// Several; a text is split at commas.
    Commas,
    /// Several; values may have commas in them, so only an environment variable is split, at white space.
    Words,
}

/// Which commands offer an option as a flag. As a key in a file, every option is known to all commands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    /// Every command.
    Global,
    /// `quorate server`.
    Server,
    /// `quorate server`, and every subcommand of `quorate etcd-snapshot`, there also without `etcd-`.
    Snapshots,
}

/// One option.
#[derive(Clone, Copy, Debug)]
pub struct Spec {
    /// The long name, which is also the key.
    pub name: &'static str,
    /// What it takes.
    pub kind: OptionKind,
    pub arity: Arity,
    /// Where it is a flag.
    pub scope: Scope,
    /// The default as text; empty if there is none or it is found out at run time.
    pub default: &'static str,
    /// A description of a default that is determined at run time.
    pub default_note: &'static str,
    /// Never shown.
    pub secret: bool,
    /// A reload applies it; the others take effect at the next restart.
    pub live: bool,
    /// The text for `--help`: one or two sentences.
    pub help: &'static str,
}

impl Spec {
    /// `QUORATE_…`.
    #[must_use]
    pub fn variable(&self) -> String {
        format!("QUORATE_{}", self.name.replace('-', "_").to_uppercase())
    }

    /// True if it takes several values.
    #[must_use]
    pub fn is_list(&self) -> bool {
        self.arity != Arity::One
    }
}

/// Two options are the same if their names are.
impl PartialEq for Spec {
    fn eq(&self, other: &Self) -> bool {
        self.name == other.name
    }
}

impl Eq for Spec {}

pub(super) const fn spec(name: &'static str, kind: OptionKind, default: &'static str, help: &'static str) -> Spec {
    Spec {
        name,
        kind,
        arity: Arity::One,
        scope: Scope::Server,
        default,
        default_note: "",
        secret: false,
        live: false,
        help,
    }
}

pub(super) const fn global(spec: Spec) -> Spec {
    Spec { scope: Scope::Global, ..spec }
}

pub(super) const fn s3(spec: Spec) -> Spec {
    Spec { scope: Scope::Snapshots, live: true, ..spec }
}

pub(super) const fn list(arity: Arity, spec: Spec) -> Spec {
    Spec { arity, ..spec }
}

pub(super) const fn noted(note: &'static str, spec: Spec) -> Spec {
    Spec { default_note: note, ..spec }
}

pub(super) const fn secret(spec: Spec) -> Spec {
    Spec { secret: true, ..spec }
}

pub(super) const fn live(spec: Spec) -> Spec {
    Spec { live: true, ..spec }
}
