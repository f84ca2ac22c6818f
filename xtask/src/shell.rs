//! Runs commands: with a time limit, in a network namespace if wanted, with errors that show what was said.

use std::ffi::{OsStr, OsString};
use std::io::{BufRead, BufReader, Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail};

use crate::{interrupt, topology::netns};

/// How long a command may take unless it says otherwise.
const DEFAULT_LIMIT: Duration = Duration::from_secs(20);

/// A command to run.
#[derive(Clone, Debug)]
pub(crate) struct Cmd {
    program: OsString,
    args: Vec<OsString>,
    env: Vec<(String, Option<OsString>)>,
    dir: Option<PathBuf>,
    netns: Option<String>,
    limit: Duration,
    input: Vec<u8>,
}

/// What a command that ended said.
#[derive(Debug)]
pub(crate) struct Said {
    pub(crate) status: ExitStatus,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

/// A command with no arguments yet.
pub(crate) fn cmd(program: impl AsRef<OsStr>) -> Cmd {
    Cmd {
        program: program.as_ref().to_owned(),
        args: Vec::new(),
        env: Vec::new(),
        dir: None,
        netns: None,
        limit: DEFAULT_LIMIT,
        input: Vec::new(),
    }
}

/// Splits at blanks; for commands whose arguments hold none.
pub(crate) fn words(line: &str) -> Cmd {
    let mut words = line.split_whitespace();
    cmd(words.next().unwrap_or_default()).args(words)
}

impl Cmd {
    pub(crate) fn arg(mut self, arg: impl AsRef<OsStr>) -> Self {
        self.args.push(arg.as_ref().to_owned());
        self
    }

    pub(crate) fn args<A: AsRef<OsStr>>(mut self, args: impl IntoIterator<Item = A>) -> Self {
        self.args.extend(args.into_iter().map(|a| a.as_ref().to_owned()));
        self
    }

    pub(crate) fn env(mut self, name: &str, value: impl AsRef<OsStr>) -> Self {
        self.env.push((name.to_owned(), Some(value.as_ref().to_owned())));
        self
    }

    pub(crate) fn without_env(mut self, name: &str) -> Self {
        self.env.push((name.to_owned(), None));
        self
    }

    pub(crate) fn dir(mut self, dir: impl AsRef<Path>) -> Self {
        self.dir = Some(dir.as_ref().to_owned());
        self
    }

    /// Runs in the network namespace with this name; nothing else of the process is another.
    pub(crate) fn netns(mut self, name: &str) -> Self {
        self.netns = Some(name.to_owned());
        self
    }

    /// Ends the command, with an error, when it takes longer.
    pub(crate) fn limit(mut self, limit: Duration) -> Self {
        self.limit = limit;
        self
    }

    /// What the command reads.
    pub(crate) fn input(mut self, input: impl Into<Vec<u8>>) -> Self {
        self.input = input.into();
        self
    }

    /// Runs it; an error unless it exits with 0.
    pub(crate) fn run(self) -> Result<()> {
        self.read().map(drop)
    }

    /// Runs it and gives what it wrote; an error unless it exits with 0.
    pub(crate) fn read(self) -> Result<String> {
        let shown = self.to_string();
        let said = self.try_read()?;
        if !said.status.success() {
            bail!("`{shown}` failed ({}): {}", said.status, tail(&said.stderr, &said.stdout));
        }
        Ok(said.stdout)
    }

    /// Runs it and gives what it wrote, whatever its exit status.
    pub(crate) fn try_read(self) -> Result<Said> {
        let shown = self.to_string();
        let mut child = self.start(Stdio::piped(), Stdio::piped(), Stdio::piped())?;
        let mut input = child.stdin.take().context("no stdin")?;
        let (out, err) = (child.stdout.take().context("no stdout")?, child.stderr.take().context("no stderr")?);
        std::thread::scope(|scope| {
            // A command that does not read all of its input is no error of ours.
            scope.spawn(|| input.write_all(&self.input).and_then(|()| input.flush()).map(|()| drop(input)));
            let out = scope.spawn(|| read_all(out));
            let err = scope.spawn(|| read_all(err));
            let status = wait(&mut child, self.limit, &shown);
            let join = |h: std::thread::ScopedJoinHandle<'_, String>| h.join().unwrap_or_default();
            let (stdout, stderr) = (join(out), join(err));
            let status = status.map_err(|error| anyhow!("{error:#} {}", tail(&stderr, &stdout)))?;
            Ok(Said { status, stdout, stderr })
        })
    }

    /// Runs it with our own stdout and stderr, so that its progress is seen.
    pub(crate) fn show(self) -> Result<()> {
        let shown = self.to_string();
        let mut child = self.start(Stdio::null(), Stdio::inherit(), Stdio::inherit())?;
        let status = wait(&mut child, self.limit, &shown)?;
        if !status.success() {
            bail!("`{shown}` failed ({status})");
        }
        Ok(())
    }

    /// Runs it with its output both shown and given, whatever its exit status. (stderr is shown only.)
    pub(crate) fn tee(self) -> Result<Said> {
        let shown = self.to_string();
        let mut child = self.start(Stdio::null(), Stdio::piped(), Stdio::inherit())?;
        let out = BufReader::new(child.stdout.take().context("no stdout")?);
        std::thread::scope(|scope| {
            let reader = scope.spawn(|| {
                let mut all = String::new();
                for line in out.split(b'\n').map_while(Result::ok) {
                    let line = String::from_utf8_lossy(&line);
                    println!("{line}");
                    all.push_str(&line);
                    all.push('\n');
                }
                all
            });
            let status = wait(&mut child, self.limit, &shown)?;
            Ok(Said { status, stdout: reader.join().unwrap_or_default(), stderr: String::new() })
        })
    }

    /// Starts it in the background, in a process group of its own (Ctrl-C does not reach it), writing to a file.
    pub(crate) fn background(self, log: &Path) -> Result<Child> {
        let file = std::fs::File::create(log).with_context(|| format!("cannot create {}", log.display()))?;
        let clone = file.try_clone().context("cannot duplicate a log's descriptor")?;
        self.spawn(|command| {
            use std::os::unix::process::CommandExt;
            command.process_group(0).stdin(Stdio::null()).stdout(file).stderr(clone);
        })
    }

    fn start(&self, stdin: Stdio, stdout: Stdio, stderr: Stdio) -> Result<Child> {
        self.spawn(|command| {
            command.stdin(stdin).stdout(stdout).stderr(stderr);
        })
    }

    fn spawn(&self, configure: impl FnOnce(&mut Command) + Send) -> Result<Child> {
        let mut command = Command::new(&self.program);
        command.args(&self.args);
        for (name, value) in &self.env {
            match value {
                Some(value) => command.env(name, value),
                None => command.env_remove(name),
            };
        }
        if let Some(dir) = &self.dir {
            command.current_dir(dir);
        }
        configure(&mut command);
        // A child inherits the namespace of the thread that starts it.
        let started = match &self.netns {
            None => command.spawn(),
            Some(name) => netns::inside(name, || Ok(command.spawn()))?,
        };
        started.with_context(|| format!("cannot start `{self}`"))
    }
}

impl std::fmt::Display for Cmd {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if let Some(netns) = &self.netns {
            write!(f, "[{netns}] ")?;
        }
        write!(f, "{}", self.program.to_string_lossy())?;
        self.args.iter().try_for_each(|arg| write!(f, " {}", arg.to_string_lossy()))
    }
}

/// Waits for a child; ends it when the limit has passed or somebody pressed Ctrl-C.
fn wait(child: &mut Child, limit: Duration, shown: &str) -> Result<ExitStatus> {
    let begin = Instant::now();
    let mut pause = Duration::from_micros(200);
    loop {
        if let Some(status) = child.try_wait().with_context(|| format!("cannot wait for `{shown}`"))? {
            return Ok(status);
        }
        let late = begin.elapsed() > limit;
        if late || interrupt::pressed() {
            child.kill().and_then(|()| child.wait()).with_context(|| format!("cannot end `{shown}`"))?;
            interrupt::check()?;
            bail!("`{shown}` took longer than {} s and was ended", limit.as_secs());
        }
        std::thread::sleep(pause);
        pause = (pause * 2).min(Duration::from_millis(20));
    }
}

fn read_all(mut from: impl Read) -> String {
    let mut bytes = Vec::new();
    // What was read before an error is still worth showing.
    let _ = from.read_to_end(&mut bytes);
    String::from_utf8_lossy(&bytes).into_owned()
}

/// The last lines of what a failed command said.
fn tail(stderr: &str, stdout: &str) -> String {
    let said = if stderr.trim().is_empty() { stdout } else { stderr };
    let lines: Vec<&str> = said.trim().lines().collect();
    lines[lines.len().saturating_sub(30)..].join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_that_takes_too_long_is_ended() {
        let begin = Instant::now();
        let error = words("sleep 30").limit(Duration::from_millis(100)).run().expect_err("it must not succeed");
        assert!(error.to_string().contains("took longer"), "{error:#}");
        assert!(begin.elapsed() < Duration::from_secs(10));
    }

    #[test]
    fn a_failure_shows_what_was_said() {
        let error = cmd("sh").args(["-c", "echo so it is >&2; exit 3"]).run().expect_err("it must fail");
        assert!(error.to_string().contains("so it is"), "{error:#}");
    }

    #[test]
    fn input_is_read_and_output_given() {
        assert_eq!(cmd("cat").input("to and fro").read().expect("cat works"), "to and fro");
    }
}
