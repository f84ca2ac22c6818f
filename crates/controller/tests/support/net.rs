//! Network namespaces for live tests, removed when dropped.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

/// The binary under test.
pub(crate) const GUENON: &str = env!("CARGO_BIN_EXE_guenon");

/// A named network namespace.
pub(crate) struct Netns {
    /// Its name in /run/netns.
    pub(crate) name: String,
}

impl Netns {
    /// A fresh one; what an earlier run left under that name is removed first.
    pub(crate) fn new(name: &str) -> Self {
        let _ = Command::new("ip").args(["netns", "del", name]).stderr(Stdio::null()).status();
        let netns = Self { name: name.to_owned() };
        host(&["ip", "netns", "add", name]);
        netns.run(&["ip", "link", "set", "lo", "up"]);
        netns
    }

    /// Runs a command inside; panics with its output where it fails.
    #[track_caller]
    pub(crate) fn run(&self, command: &[&str]) -> String {
        let output = self.command(command[0]).args(&command[1..]).output().expect("the command starts");
        check(command, output)
    }

    /// A command inside. No mount namespace is made, unlike `ip netns exec`: pins stay where all see them.
    pub(crate) fn command(&self, program: &str) -> Command {
        let mut command = Command::new("nsenter");
        command.arg(format!("--net=/run/netns/{}", self.name)).arg("--").arg(program);
        command
    }

    /// Runs `work` on a thread inside.
    pub(crate) fn inside<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        std::thread::scope(|scope| scope.spawn(|| self.enter(work)).join().expect("the thread inside does not panic"))
    }

    /// Starts `work` on a thread inside that is left alone.
    pub(crate) fn spawn(&self, work: impl FnOnce() + Send + 'static) {
        let name = self.name.clone();
        std::thread::spawn(move || Self::enter_named(&name, work));
    }

    fn enter<T>(&self, work: impl FnOnce() -> T) -> T {
        Self::enter_named(&self.name, work)
    }

    fn enter_named<T>(name: &str, work: impl FnOnce() -> T) -> T {
        let file = std::fs::File::open(Path::new("/run/netns").join(name)).expect("the namespace is there");
        nix::sched::setns(file, nix::sched::CloneFlags::CLONE_NEWNET).expect("entering the namespace");
        work()
    }
}

impl Drop for Netns {
    fn drop(&mut self) {
        let _ = Command::new("ip").args(["netns", "del", &self.name]).status();
    }
}

/// Runs a command; panics with its output where it fails.
#[track_caller]
pub(crate) fn host(command: &[&str]) -> String {
    check(command, Command::new(command[0]).args(&command[1..]).output().expect("the command starts"))
}

#[track_caller]
fn check(command: &[&str], output: Output) -> String {
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(
        output.status.success(),
        "`{}` failed: {}{}",
        command.join(" "),
        text,
        String::from_utf8_lossy(&output.stderr)
    );
    text
}

/// A directory of its own for one test, with pins beside it; both are removed when dropped.
pub(crate) struct Scratch {
    /// For files.
    pub(crate) dir: tempfile::TempDir,
    /// For pins.
    pub(crate) pins: PathBuf,
}

impl Scratch {
    /// Fresh ones.
    pub(crate) fn new(name: &str) -> Self {
        let pins = Path::new("/sys/fs/bpf").join(format!("guenon-test-{name}"));
        let _ = std::fs::remove_dir_all(&pins);
        let dir = tempfile::tempdir().expect("a directory");
        std::fs::set_permissions(dir.path(), std::fs::Permissions::from_mode(0o755)).expect("permissions");
        Self { dir, pins }
    }

    /// A path in the directory.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.pins);
    }
}

/// A process that is ended when dropped, its log shown where the test failed.
pub(crate) struct Process {
    child: Child,
    log: PathBuf,
}

impl Process {
    /// Starts it with its output in `log`.
    pub(crate) fn start(mut command: Command, log: PathBuf) -> Self {
        let file = std::fs::File::create(&log).expect("a log");
        let child = command
            .stdin(Stdio::null())
            .stdout(file.try_clone().expect("a second handle"))
            .stderr(file)
            .spawn()
            .expect("the process starts");
        Self { child, log }
    }

    /// Its process id.
    pub(crate) fn pid(&self) -> nix::unistd::Pid {
        nix::unistd::Pid::from_raw(self.child.id().try_into().expect("a pid"))
    }

    /// Sends a signal and waits for the end; the exit code, if it was not ended by a signal.
    pub(crate) fn end(&mut self, signal: nix::sys::signal::Signal) -> Option<i32> {
        nix::sys::signal::kill(self.pid(), signal).expect("the process is there");
        self.child.wait().expect("its end").code()
    }

    /// Waits until it ends by itself.
    pub(crate) fn wait(&mut self) -> Option<i32> {
        self.child.wait().expect("its end").code()
    }

    /// What it wrote so far.
    pub(crate) fn log(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// Fails the test where it has ended.
    #[track_caller]
    pub(crate) fn assert_runs(&mut self) {
        if let Some(status) = self.child.try_wait().expect("a state") {
            panic!("the process ended with {status}: {}", self.log());
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            eprintln!("--- {}\n{}", self.log.display(), self.log());
        }
    }
}

/// Waits until `ready` says so; panics with `what` after twenty seconds.
#[track_caller]
pub(crate) fn wait_until(what: &str, mut ready: impl FnMut() -> bool) {
    let start = Instant::now();
    while !ready() {
        assert!(start.elapsed() < Duration::from_secs(20), "waited in vain for: {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Answers each connection on this address, for as long as the test runs, with `name` and what it was sent.
pub(crate) fn serve(netns: &Netns, address: SocketAddr, name: &'static str) {
    let (ready, listening) = std::sync::mpsc::channel();
    netns.spawn(move || {
        let listener = TcpListener::bind(address).expect("the address is free");
        ready.send(()).expect("somebody waits");
        for stream in listener.incoming() {
            let Ok(mut stream) = stream else { continue };
            std::thread::spawn(move || {
                let mut request = Vec::new();
                if stream.read_to_end(&mut request).is_ok() {
                    let _ = stream.write_all(name.as_bytes()).and_then(|()| stream.write_all(&request));
                }
            });
        }
    });
    listening.recv().expect("the server listens");
}

/// Sends a request to this address from inside a namespace; the answer, or why there was none.
pub(crate) fn ask(netns: &Netns, address: SocketAddr, request: &[u8]) -> std::io::Result<Vec<u8>> {
    netns.inside(|| {
        let mut stream = TcpStream::connect_timeout(&address, Duration::from_secs(2))?;
        stream.set_read_timeout(Some(Duration::from_secs(3)))?;
        stream.write_all(request)?;
        stream.shutdown(std::net::Shutdown::Write)?;
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer)?;
        Ok(answer)
    })
}

/// `GET path` by HTTP/1.1.
pub(crate) fn http_get(netns: &Netns, address: SocketAddr, path: &str) -> std::io::Result<String> {
    let request = format!("GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
    netns.inside(|| {
        let mut stream = TcpStream::connect_timeout(&address, Duration::from_secs(2))?;
        stream.write_all(request.as_bytes())?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        Ok(answer)
    })
}
