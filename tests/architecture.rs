//! Keeps the shape of the program: who may import whom, how long a file may be,
//! where `unsafe` may stand. It reads the sources as text, without comments,
//! literals and test modules; [`RULES`] is the one place that says what is allowed.
//! `docs/architecture.md` says why.

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

/// A module and what it may import of ours besides itself, by prefix of the path.
type Rule = (&'static str, &'static [&'static str]);

/// In the order of the data path. The longest name that fits a file's module is its rule.
const RULES: &[Rule] = &[
    // Leaves import each other downward, and nothing above them.
    ("time", &[]),
    ("codec", &[]),
    ("media", &["codec", "time"]),
    ("problem", &[]),
    ("qos", &[]),
    ("route", &[]),
    ("rtp", &["codec", "media", "time"]),
    ("webrtc", &["codec", "media", "route", "rtp", "time"]),
    // What is written is checked where it is written, by the types that will hold it; of
    // their modules it takes no more.
    (
        "config",
        &[
            "hub::TableName",
            "net::addresses::AddressSource",
            "net::dscp::Dscp",
            "webrtc::sdp::MAX_SDP_BYTES",
        ],
    ),
    // The operating system.
    ("net", &["route"]),
    // The hub knows what media is, and neither where it comes from nor where it goes.
    ("hub", &["codec", "media", "rtp", "time"]),
    // Its two sides know the hub and never each other; nor do the ways out.
    ("ingest", &["codec", "media", "rtp", "time", "webrtc", "net", "hub", "qos"]),
    ("egress::fanout", &["codec", "media", "route", "rtp", "time", "webrtc", "net", "hub", "qos"]),
    ("egress::hls", &["codec", "media", "problem", "rtp", "time", "net", "hub", "qos"]),
    ("egress", &[]),
    // A worker runs the peers of both kinds. HLS has its own tasks.
    (
        "worker",
        &[
            "codec",
            "media",
            "route",
            "rtp",
            "time",
            "webrtc",
            "qos",
            "net",
            "hub",
            "ingest",
            "egress::fanout",
        ],
    ),
    // Surfaces see views, never sockets, nor the inside of either side.
    (
        "api",
        &["codec", "media", "time", "problem", "qos", "webrtc", "hub", "worker", "egress::hls"],
    ),
    ("logging", &["config"]),
    // The one place that knows all parts.
    ("app", &["*"]),
    ("lib", &["*"]),
    ("main", &["*"]),
];

/// Modules that compute and are told the time: what they may not name, of others.
const SANS_IO: &[&str] = &["codec", "media", "route", "rtp", "webrtc", "ingest"];
const IO_CRATES: &[&str] =
    &["tokio", "mio", "socket2", "libc", "hyper", "axum", "rand", "std::thread", "std::fs"];

/// Where `unsafe` stands: the sockets, and the one of the load generator that reads when
/// the kernel received an answer.
const UNSAFE_PLACES: [&str; 2] = ["src/net/udp/", "loadgen/src/hls/socket.rs"];
/// Lines of a file.
const MAX_LINES: usize = 600;

#[test]
fn modules_import_only_what_their_rule_allows() {
    check(&["src"], |source, complaints| {
        if source.is_test {
            return;
        }
        let module = source.module();
        let Some((name, allowed)) = rule_of(&module) else {
            return complaints.add(source, 1, &format!("module `{module}` has no rule in RULES"));
        };
        for (line, path) in source.own_paths() {
            let reachable = is_within(&path, name)
                || allowed.iter().any(|prefix| *prefix == "*" || is_within(&path, prefix));
            if !reachable {
                let list = if allowed.is_empty() { "nothing".into() } else { allowed.join(", ") };
                let text = format!("`{name}` imports `{path}`; of ours it may import {list}");
                complaints.add(source, line, &text);
            }
        }
    });
}

#[test]
fn protocol_code_names_no_sockets_tasks_or_random_sources() {
    check(&["src"], |source, complaints| {
        let module = source.module();
        if source.is_test || !SANS_IO.iter().any(|sans_io| is_within(&module, sans_io)) {
            return;
        }
        for name in IO_CRATES {
            for at in source.find(&format!("{name}::")) {
                let text = format!("`{module}` is sans-IO and names `{name}`");
                complaints.add(source, source.line_of(at), &text);
            }
        }
    });
}

#[test]
fn files_are_short_and_say_what_they_are_for() {
    check(&["src", "tests", "loadgen", "fuzz/src"], |source, complaints| {
        let lines = source.text.lines().count();
        if lines >= MAX_LINES {
            complaints.add(source, lines, &format!("{lines} lines; a file has under {MAX_LINES}"));
        }
        if !source.text.starts_with("//! ") {
            complaints.add(source, 1, "a file opens with a `//!` comment that says its purpose");
        }
    });
}

#[test]
fn unsafe_stands_in_the_sockets_alone() {
    check(&["src", "tests", "loadgen", "fuzz/src"], |source, complaints| {
        if !UNSAFE_PLACES.iter().any(|place| source.name.starts_with(place)) {
            for at in source.find("unsafe") {
                let text = format!("`unsafe` belongs to {UNSAFE_PLACES:?}");
                complaints.add(source, source.line_of(at), &text);
            }
        }
    });
}

#[test]
fn the_reader_sees_imports_however_they_are_written() {
    let text = "//! x\nuse crate::{net::udp, hub::{Registry, name as n}};\n\
                // use crate::app;\nconst A: &str = \"crate::app\"; const Q: char = '\"';\n\
                fn f<'a>() { super::super::fanout::g(); pub(super) use crate::a\n::b; }\n\
                #[cfg(test)]\nmod tests { use crate::app::X; }\nfn g() { crate::z() }\n";
    let source = Source::new("src/egress/hls/http.rs", text.to_owned());
    let paths = source.own_paths();
    let expected = [
        (2, "net::udp"),
        (2, "hub::Registry"),
        (2, "hub::name"),
        (5, "a::b"),
        (9, "z"),
        (5, "egress::fanout::g"),
    ];
    assert_eq!(paths, expected.map(|(line, path)| (line, path.to_owned())));
    assert_eq!(rule_of("egress::hls::http").map(|rule| rule.0), Some("egress::hls"));
    assert_eq!(rule_of("network"), None);
}

/// One source file.
struct Source {
    /// From the root of the repository.
    name: String,
    text: String,
    /// The same length: comments, literals and test modules are blanks.
    code: String,
    is_test: bool,
}

impl Source {
    fn new(name: &str, text: String) -> Self {
        let code = without_tests(&without_comments(&text));
        let file = name.rsplit('/').next().unwrap_or(name);
        let is_test = file == "tests.rs" || file.ends_with("_tests.rs") || name.contains("/tests/");
        Self { name: name.to_owned(), text, code, is_test }
    }

    /// `src/egress/hls/mod.rs` → `egress::hls`.
    fn module(&self) -> String {
        let path = self.name.trim_start_matches("src/").trim_end_matches(".rs");
        path.trim_end_matches("/mod").replace('/', "::")
    }

    /// Each path into the crate, from its root: what follows `crate::`, and what
    /// `super::` leads to.
    fn own_paths(&self) -> Vec<(usize, String)> {
        let mut paths = Vec::new();
        for at in self.find("crate::") {
            expand(&self.code[at + "crate::".len()..], "", &mut |path| {
                paths.push((self.line_of(at), path));
            });
        }
        let module = self.module();
        for at in self.find("super::") {
            // Further ones of the same chain are counted with its first.
            if self.code[..at].ends_with("::") {
                continue;
            }
            let mut rest = &self.code[at..];
            let mut base: Vec<&str> = module.split("::").collect();
            while let Some(after) = rest.strip_prefix("super::") {
                base.pop();
                rest = after;
            }
            expand(rest, &base.join("::"), &mut |path| paths.push((self.line_of(at), path)));
        }
        paths
    }

    /// Where `word` stands in the code and is no part of a longer name.
    fn find(&self, word: &str) -> Vec<usize> {
        let is_name = |c: char| c.is_alphanumeric() || c == '_';
        let places = self.code.match_indices(word).map(|(at, _)| at);
        let whole = |at: &usize| {
            let (before, after) = (&self.code[..*at], &self.code[at + word.len()..]);
            !before.ends_with(is_name) && (word.ends_with(':') || !after.starts_with(is_name))
        };
        places.filter(whole).collect()
    }

    fn line_of(&self, at: usize) -> usize {
        self.code[..at].matches('\n').count() + 1
    }
}

/// Reads a path or a group of paths and gives each, joined to `prefix`.
fn expand<'a>(text: &'a str, prefix: &str, found: &mut impl FnMut(String)) -> &'a str {
    let mut path = prefix.to_owned();
    let mut rest = text.trim_start();
    loop {
        if let Some(mut inside) = rest.strip_prefix('{') {
            loop {
                inside = inside.trim_start();
                if inside.is_empty() || inside.starts_with('}') {
                    return inside.get(1..).unwrap_or("");
                }
                inside = expand(inside, &path, found);
                // Past a rename, to what comes next.
                let next = inside.find([',', '}']).unwrap_or(inside.len());
                inside = inside[next..].trim_start_matches(',');
            }
        }
        let end = rest.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(rest.len());
        let (segment, after) = rest.split_at(end);
        if !segment.is_empty() && segment != "self" {
            let separator = if path.is_empty() { "" } else { "::" };
            let _ = write!(path, "{separator}{segment}");
        }
        match after.trim_start().strip_prefix("::") {
            Some(next) => rest = next.trim_start(),
            None => {
                found(path);
                return after;
            }
        }
    }
}

fn rule_of(module: &str) -> Option<&'static Rule> {
    RULES.iter().filter(|(name, _)| is_within(module, name)).max_by_key(|(name, _)| name.len())
}

/// `prefix` is `path`, or a module above it.
fn is_within(path: &str, prefix: &str) -> bool {
    path.strip_prefix(prefix).is_some_and(|rest| rest.is_empty() || rest.starts_with("::"))
}

/// Blanks out comments and the insides of string and character literals.
fn without_comments(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(first) = rest.chars().next() {
        let len = skipped_len(rest, out.chars().next_back());
        let taken = if len == 0 { first.len_utf8() } else { len };
        let (piece, after) = rest.split_at(taken);
        if len == 0 {
            out.push(first);
        } else {
            out.extend(piece.chars().map(|c| if c == '\n' { '\n' } else { ' ' }));
        }
        rest = after;
    }
    out
}

/// Bytes of the comment or literal that `text` begins with; 0 when it does not.
fn skipped_len(text: &str, before: Option<char>) -> usize {
    let in_name = before.is_some_and(|c| c.is_alphanumeric() || c == '_');
    if text.starts_with("//") {
        return text.find('\n').unwrap_or(text.len());
    }
    if text.starts_with("/*") {
        return text.find("*/").map_or(text.len(), |end| end + 2);
    }
    if text.starts_with('r') && !in_name {
        let hashes = text[1..].len() - text[1..].trim_start_matches('#').len();
        if text[1 + hashes..].starts_with('"') {
            let close = format!("\"{}", "#".repeat(hashes));
            let body = 2 + hashes;
            return text[body..].find(&close).map_or(text.len(), |end| body + end + close.len());
        }
    }
    match text.as_bytes() {
        [b'"', ..] => quoted_len(text, b'"'),
        // A character, and not a lifetime.
        [b'\'', b'\\', ..] => quoted_len(text, b'\''),
        [b'\'', ..] => {
            let second = text[1..].chars().next().map_or(0, char::len_utf8);
            if text[1 + second..].starts_with('\'') { second + 2 } else { 0 }
        }
        _ => 0,
    }
}

fn quoted_len(text: &str, quote: u8) -> usize {
    let mut escaped = false;
    for (at, byte) in text.bytes().enumerate().skip(1) {
        match byte {
            _ if escaped => escaped = false,
            b'\\' => escaped = true,
            byte if byte == quote => return at + 1,
            _ => {}
        }
    }
    text.len()
}

/// Blanks out each item under `#[cfg(test)]`, up to its `;` or closing brace.
fn without_tests(code: &str) -> String {
    const MARK: &str = "#[cfg(test)]";
    let mut out = String::with_capacity(code.len());
    let mut rest = code;
    while let Some(at) = rest.find(MARK) {
        out.push_str(&rest[..at]);
        let item = &rest[at..];
        let len = item_len(item);
        out.extend(item[..len].chars().map(|c| if c == '\n' { '\n' } else { ' ' }));
        rest = &item[len..];
    }
    out.push_str(rest);
    out
}

fn item_len(item: &str) -> usize {
    let mut depth = 0usize;
    for (at, c) in item.char_indices() {
        match c {
            ';' if depth == 0 => return at + 1,
            '{' => depth += 1,
            '}' => {
                depth = depth.saturating_sub(1);
                if depth == 0 {
                    return at + 1;
                }
            }
            _ => {}
        }
    }
    item.len()
}

/// What is wrong, one line for each place.
#[derive(Default)]
struct Complaints(String);

impl Complaints {
    fn add(&mut self, source: &Source, line: usize, text: &str) {
        let _ = writeln!(self.0, "{}:{line}: {text}", source.name);
    }
}

/// Looks at every Rust file in `folders`, and fails with all complaints.
fn check(folders: &[&str], look: impl Fn(&Source, &mut Complaints)) {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut files = Vec::new();
    folders.iter().for_each(|folder| collect(&root.join(folder), &mut files));
    files.sort();
    assert!(!files.is_empty(), "no sources in {folders:?}");
    let mut complaints = Complaints::default();
    for file in files {
        let name = file.strip_prefix(root).unwrap_or(&file).display().to_string();
        look(&Source::new(&name, fs::read_to_string(&file).expect("a source")), &mut complaints);
    }
    assert!(complaints.0.is_empty(), "\n{}", complaints.0);
}

fn collect(folder: &Path, files: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).expect("a folder") {
        let path = entry.expect("an entry").path();
        let name = path.file_name().unwrap_or_default();
        if path.is_dir() && name != "node_modules" && name != "target" {
            collect(&path, files);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            files.push(path);
        }
    }
}
