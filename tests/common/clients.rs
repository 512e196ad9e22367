//! Clients of other makers as processes: ffmpeg, and aiortc by a Python script.

use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::thread::JoinHandle;
use std::time::Instant;

use serde_json::Value;

use super::LATER;

/// The repository.
pub fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// The Python that has aiortc.
pub fn python() -> PathBuf {
    let python = root().join(".cache/venv/bin/python");
    assert!(python.exists(), "no {}; run `scripts/setup.sh test`", python.display());
    python
}

/// An ffmpeg that has a WHIP muxer; those of distributions are older.
pub fn ffmpeg() -> &'static str {
    static PATH: OnceLock<String> = OnceLock::new();
    PATH.get_or_init(|| {
        let program = "import imageio_ffmpeg; print(imageio_ffmpeg.get_ffmpeg_exe())";
        let output = Command::new(python()).args(["-c", program]).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap().trim().to_owned()
    })
}

/// A client's process: killed when dropped, with what it said shown by a failed test.
pub struct Process {
    name: String,
    child: Child,
    output: Receiver<String>,
    errors: Option<JoinHandle<String>>,
}

impl Process {
    fn spawn(name: &str, command: &mut Command) -> Self {
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap_or_else(|error| panic!("{name}: {error}"));
        let stdout = BufReader::new(child.stdout.take().unwrap());
        let mut stderr = child.stderr.take().unwrap();
        let (lines, output) = channel();
        std::thread::spawn(move || {
            stdout.lines().map_while(Result::ok).try_for_each(|line| lines.send(line))
        });
        let errors = std::thread::spawn(move || {
            let mut said = Vec::new();
            let _ = stderr.read_to_end(&mut said);
            String::from_utf8_lossy(&said).into_owned()
        });
        Self { name: name.to_owned(), child, output, errors: Some(errors) }
    }

    /// ffmpeg publishes a test picture in H.264 and a tone in Opus. `options` go to
    /// its WHIP muxer.
    pub fn ffmpeg_publisher(url: &str, options: &[&str]) -> Self {
        let video = ["-f", "lavfi", "-i", "testsrc2=size=640x360:rate=30"];
        let audio = ["-f", "lavfi", "-i", "sine=frequency=440:sample_rate=48000"];
        // A baseline stream without B-frames and a keyframe each second: WebRTC has
        // no reordering, and ffmpeg's WHIP muxer does not answer keyframe requests.
        let encode = ["-c:v", "libx264", "-preset", "ultrafast", "-tune", "zerolatency"];
        let shape = ["-profile:v", "baseline", "-pix_fmt", "yuv420p", "-g", "30", "-b:v", "600k"];
        let sound = ["-c:a", "libopus", "-ar", "48000", "-ac", "2", "-b:a", "64k"];
        let mut command = Command::new(ffmpeg());
        command.args(["-hide_banner", "-nostats", "-loglevel", "warning", "-re"]).args(video);
        command.arg("-re").args(audio).args(encode).args(shape).args(sound);
        command.args(["-f", "whip"]).args(options).arg(url);
        Self::spawn("ffmpeg", &mut command)
    }

    /// aiortc in the role that `arguments` start with; see `tests/clients/aiortc_peer.py`.
    pub fn aiortc(arguments: &[&str]) -> Self {
        let mut command = Command::new(python());
        command.arg(root().join("tests/clients/aiortc_peer.py")).args(arguments);
        Self::spawn("aiortc", &mut command)
    }

    /// A WHEP server on aiortc that sends `codec`; its first report names its port.
    pub fn aiortc_whep(codec: &str) -> Self {
        let mut command = Command::new(python());
        command.arg(root().join("tests/clients/aiortc_whep.py")).arg(codec);
        Self::spawn("aiortc", &mut command)
    }

    /// Process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// The next line that the client reports, an object of JSON.
    pub async fn report(&mut self) -> Value {
        let deadline = Instant::now() + LATER;
        loop {
            // In short waits, so that the other tasks of this thread go on.
            match self.output.try_recv() {
                Ok(line) => return serde_json::from_str(&line).unwrap(),
                Err(std::sync::mpsc::TryRecvError::Disconnected) => break,
                Err(_) if Instant::now() >= deadline => break,
                Err(_) => tokio::task::yield_now().await,
            }
            let waited = tokio::task::block_in_place(|| {
                self.output.recv_timeout(std::time::Duration::from_millis(50))
            });
            match waited {
                Ok(line) => return serde_json::from_str(&line).unwrap(),
                Err(RecvTimeoutError::Disconnected) => break,
                Err(RecvTimeoutError::Timeout) => {}
            }
        }
        panic!("{} reports nothing", self.name);
    }

    /// Waits until an aiortc client reports that its connection is in `state`.
    pub async fn wait_for_state(&mut self, state: &str) {
        while self.report().await["state"] != state {}
    }

    /// Ends it without a chance to say goodbye.
    pub fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Whether it still runs.
    pub fn is_running(&mut self) -> bool {
        self.child.try_wait().unwrap().is_none()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let (_, _) = (self.child.kill(), self.child.wait());
        if let Some(errors) = self.errors.take()
            && let Ok(said) = errors.join()
            && std::thread::panicking()
        {
            eprintln!("{} said:\n{said}", self.name);
        }
    }
}
