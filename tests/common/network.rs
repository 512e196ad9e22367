//! Private networks for tests that change or listen to one: the test runs in a network
//! namespace of its own, and makes others beside it. Everything of them ends with the
//! processes in them; the host's network is never touched.

use std::io::{BufRead, BufReader};
use std::path::PathBuf;
use std::process::{Child, ChildStderr, ChildStdin, Command, Stdio};

use super::{SOON, wait_until};

/// Runs a test in a network namespace of its own: starts the test binary anew for the
/// test `name`. Returns whether the caller is the one inside.
pub fn in_namespace(name: &str) -> bool {
    const INSIDE: &str = "RAILBIRD_TEST_INSIDE_NAMESPACE";
    if std::env::var_os(INSIDE).is_some() {
        run("ip link set lo up");
        return true;
    }
    let mut unshare = Command::new("unshare");
    unshare.arg("--net");
    if !rustix::process::geteuid().is_root() {
        unshare.arg("--map-root-user");
    }
    unshare.arg(std::env::current_exe().unwrap()).args(["--exact", "--nocapture", name]);
    let output = unshare.env(INSIDE, "1").output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    let complaint = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && said.contains("1 passed"), "{said}\n{complaint}");
    false
}

/// Runs a command of the system; returns what it says.
pub fn run(line: &str) -> String {
    let mut words = line.split_whitespace();
    let output = Command::new(words.next().unwrap()).args(words).output().unwrap();
    assert!(output.status.success(), "{line}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

/// Another host: a network namespace that lives as long as this value.
pub struct Host {
    keeper: Child,
    /// The keeper reads it, and ends when it is closed.
    _stdin: ChildStdin,
}

impl Host {
    /// A host without a network.
    pub async fn new() -> Self {
        let mut unshare = Command::new("unshare");
        let mut keeper = unshare.args(["--net", "cat"]).stdin(Stdio::piped()).spawn().unwrap();
        let stdin = keeper.stdin.take().unwrap();
        let namespace = |process: &str| std::fs::read_link(format!("/proc/{process}/ns/net"));
        let (own, other) = (namespace("self").unwrap(), keeper.id().to_string());
        let moved = async || namespace(&other).ok().filter(|namespace| *namespace != own);
        wait_until("the host has its namespace", SOON, moved).await;
        let host = Self { keeper, _stdin: stdin };
        host.run("ip link set lo up");
        host
    }

    /// Its process id, by which `ip link` knows it.
    pub fn pid(&self) -> u32 {
        self.keeper.id()
    }

    /// A command that is to run on it.
    pub fn command(&self, program: &str) -> Command {
        let mut command = Command::new("nsenter");
        command.args(["--target", &self.pid().to_string(), "--net", program]);
        command
    }

    /// Runs a command on it.
    pub fn run(&self, line: &str) -> String {
        run(&format!("nsenter --target {} --net {line}", self.pid()))
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        let (_, _) = (self.keeper.kill(), self.keeper.wait());
    }
}

/// tshark listening to an interface.
pub struct Capture {
    tshark: Child,
    /// Open to its end, when it says how much it has seen.
    stderr: BufReader<ChildStderr>,
    _directory: tempfile::TempDir,
    file: PathBuf,
}

impl Capture {
    /// Listens for what fits `filter` (as `pcap-filter(7)`); returns once it does.
    pub fn start(interface: &str, filter: &str) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("capture.pcapng");
        let mut tshark = Command::new("tshark");
        tshark.args(["-q", "-i", interface, "-f", filter, "-w"]).arg(&file);
        tshark.stderr(Stdio::piped()).stdout(Stdio::null());
        let mut tshark = tshark.spawn().expect("tshark, which scripts/setup.sh test installs");
        let stderr = BufReader::new(tshark.stderr.take().unwrap());
        let mut capture = Self { tshark, stderr, _directory: directory, file };
        let mut line = String::new();
        while !line.contains("Capturing on") {
            let more = capture.stderr.read_line(&mut line).unwrap() > 0;
            assert!(more, "tshark does not listen: {line}");
        }
        capture
    }

    /// Ends it; returns these fields of each packet, which are empty where it has none.
    pub async fn stop(mut self, fields: &[&str]) -> Vec<Vec<String>> {
        run(&format!("kill -INT {}", self.tshark.id()));
        let tshark = &mut self.tshark;
        wait_until("tshark ends", SOON, async || tshark.try_wait().unwrap()).await;
        let fields: String = fields.iter().map(|field| format!(" -e {field}")).collect();
        let file = self.file.display();
        let said = run(&format!("tshark -r {file} -T fields -E occurrence=f{fields}"));
        let packet = |line: &str| line.split('\t').map(str::to_owned).collect();
        said.lines().map(packet).collect()
    }
}

impl Drop for Capture {
    fn drop(&mut self) {
        let (_, _) = (self.tshark.kill(), self.tshark.wait());
    }
}
