//! Any video, decoded by the programs ffmpeg and ffprobe.
//!
//! They run as child processes, with an argument list and no shell, and may read the one file
//! alone. Frames come through a pipe as raw RGB, each after a PPM header that gives its size, since
//! ffmpeg rotates videos by their display matrix. Where the size changes within a video, ffmpeg
//! scales every frame to the size of the first. A child without a frame for [`PATIENCE`] is killed.

use std::io::{BufRead, BufReader, Read, Write as _};
use std::path::Path;
use std::process::{Child, ChildStdout, Command, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use crossbeam_channel::{RecvTimeoutError, Sender, unbounded};
use tempfile::NamedTempFile;

use super::{Sink, VideoIndex, check_size};
use crate::{DecodeError, Image};

/// Timeout of a silent child.
const PATIENCE: Duration = Duration::from_secs(60);

/// Limit of the frames of a video: ten hours at 60 a second.
const MAX_FRAMES: usize = 1 << 21;

/// Byte limit of a child's messages.
const WORDS: u64 = 2000;

/// Video that ffmpeg reads from a file.
pub(super) struct Ffmpeg {
    /// Temporary copy of the video: it may lie in a shard, and ffmpeg needs to seek. It is deleted
    /// on drop.
    file: NamedTempFile,
}

impl Ffmpeg {
    pub(super) fn open(data: &[u8]) -> Result<(VideoIndex, Self), DecodeError> {
        let failed = |e: std::io::Error| format!("cannot write it out for ffmpeg: {e}");
        let mut file =
            tempfile::Builder::new().prefix("aurora-video-").tempfile().map_err(failed)?;
        file.write_all(data).and_then(|()| file.flush()).map_err(failed)?;
        let this = Self { file };
        let video_index = this.index()?;
        Ok((video_index, this))
    }

    /// Timestamps of all frames; ffprobe decodes the video for them, since a container may be wrong
    /// about their number.
    fn index(&self) -> Result<VideoIndex, String> {
        let entries = "frame=best_effort_timestamp_time,pkt_duration_time,duration_time";
        let arguments = ["-select_streams", "v:0", "-show_entries", entries, "-of", "csv=p=0"];
        let mut child = Running::start("ffprobe", &arguments, self.file.path(), &[])?;
        let (mut times, mut last_duration) = (Vec::new(), 0.0);
        let mut line = String::new();
        while child.words(&mut line)? {
            // Side data of a frame are on a line of their own, empty here.
            if line.trim().is_empty() {
                continue;
            }
            let mut fields = line.trim().split(',').map(|field| field.parse::<f64>().ok());
            let before = times.last().copied().unwrap_or(0.0);
            let time = fields.next().flatten().filter(|time| time.is_finite());
            last_duration =
                fields.flatten().find(|d| d.is_finite() && *d > 0.0).unwrap_or(last_duration);
            // A frame without a timestamp gets that of the previous one.
            times.push(time.map_or(before, |time: f64| time.max(before)));
            if times.len() > MAX_FRAMES {
                return Err(format!("it has more than {MAX_FRAMES} frames"));
            }
        }
        child.finish()?;
        let begin = times.first().copied().unwrap_or(0.0);
        times.iter_mut().for_each(|time| *time -= begin);
        let end = times.last().copied().unwrap_or(0.0) + last_duration;
        Ok(VideoIndex { times, end })
    }

    pub(super) fn frames(&self, wanted: &[usize], sink: &mut Sink<'_>) -> Result<(), DecodeError> {
        let output = ["-map", "0:v:0", "-f", "image2pipe", "-c:v", "ppm", "-pix_fmt", "rgb24"];
        match self.frames_by(&["-fps_mode", "passthrough"], &output, wanted, sink) {
            // Before version 5.1 the option had another name, which later versions removed.
            Err(error) if error.to_string().contains("fps_mode") => {
                self.frames_by(&["-vsync", "passthrough"], &output, wanted, sink)
            }
            done => done,
        }
    }

    fn frames_by(
        &self,
        every_frame: &[&str],
        output: &[&str],
        wanted: &[usize],
        sink: &mut Sink<'_>,
    ) -> Result<(), DecodeError> {
        let after: Vec<&str> = output.iter().chain(every_frame).chain(&["-"]).copied().collect();
        let mut child = Running::start("ffmpeg", &["-nostdin"], self.file.path(), &after)?;
        let mut place = 0;
        for index in 0.. {
            let Some(&next) = wanted.get(place) else { return Ok(()) };
            let Some((width, height)) = child.header()? else {
                child.finish()?;
                return Err(format!("ffmpeg ended before frame {next}").into());
            };
            check_size(width, height)?;
            let bytes = width * height * 3;
            if index < next {
                child.skip(bytes)?;
                continue;
            }
            let rgb = child.bytes(bytes)?;
            let image = Image::new(width as usize, height as usize, rgb)
                .ok_or("ffmpeg gave less than a frame")?;
            sink(place, image)?;
            place += 1;
        }
        Ok(())
    }
}

/// Child process that writes to us. It is killed on drop.
struct Running {
    program: &'static str,
    child: Arc<Mutex<Child>>,
    output: BufReader<ChildStdout>,
    /// Heartbeat to the watchdog.
    alive: Option<Sender<()>>,
    watcher: Option<JoinHandle<()>>,
    errors: Option<JoinHandle<String>>,
}

impl Running {
    fn start(
        program: &'static str,
        before: &[&str],
        video: &Path,
        after: &[&str],
    ) -> Result<Self, String> {
        // `file:` keeps a name from being taken for an option or a protocol; the whitelist keeps a
        // playlist from naming anything that is not a file.
        let mut input = std::ffi::OsString::from("file:");
        input.push(video);
        let spawned = Command::new(program)
            .args(["-v", "error", "-protocol_whitelist", "file"])
            .args(before)
            .arg("-i")
            .arg(input)
            .args(after)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn();
        let mut child = spawned.map_err(|e| match e.kind() {
            std::io::ErrorKind::NotFound => format!(
                "the program {program} is not installed, or not on PATH; install ffmpeg, or store \
                 the frames in a folder"
            ),
            _ => format!("cannot start {program}: {e}"),
        })?;
        let (Some(output), Some(errors)) = (child.stdout.take(), child.stderr.take()) else {
            return Err(format!("{program} has no pipe"));
        };
        let child = Arc::new(Mutex::new(child));
        let (alive, beats) = unbounded::<()>();
        let watched = Arc::clone(&child);
        let watcher = std::thread::spawn(move || {
            loop {
                match beats.recv_timeout(PATIENCE) {
                    Ok(()) => {}
                    Err(RecvTimeoutError::Disconnected) => return,
                    Err(RecvTimeoutError::Timeout) => {
                        watched.lock().unwrap_or_else(PoisonError::into_inner).kill().ok();
                        return;
                    }
                }
            }
        });
        let errors = std::thread::spawn(move || {
            let mut words = Vec::new();
            let mut errors = errors;
            errors.by_ref().take(WORDS).read_to_end(&mut words).ok();
            // Drain the rest, or the child would block.
            std::io::copy(&mut errors, &mut std::io::sink()).ok();
            String::from_utf8_lossy(&words).trim().replace('\n', "; ")
        });
        Ok(Self {
            program,
            child,
            output: BufReader::with_capacity(1 << 16, output),
            alive: Some(alive),
            watcher: Some(watcher),
            errors: Some(errors),
        })
    }

    fn beat(&self) {
        if let Some(alive) = &self.alive {
            alive.send(()).ok();
        }
    }

    fn failed(&self, error: &std::io::Error) -> String {
        format!("reading from {}: {error}", self.program)
    }

    /// Next line of output, at most 1000 bytes of it; false at the end.
    fn words(&mut self, line: &mut String) -> Result<bool, String> {
        line.clear();
        let read = (&mut self.output).take(1000).read_line(line).map_err(|e| self.failed(&e))?;
        self.beat();
        Ok(read > 0)
    }

    /// Size in a PPM header; `None` at the end.
    fn header(&mut self) -> Result<Option<(u64, u64)>, String> {
        let mut line = String::new();
        let mut fields = Vec::new();
        while fields.len() < 4 {
            if !self.words(&mut line)? {
                return if fields.is_empty() {
                    Ok(None)
                } else {
                    Err("ffmpeg's output is cut".into())
                };
            }
            fields.extend(line.split_whitespace().map(str::to_string));
        }
        let size = |at: usize| fields.get(at).and_then(|field| field.parse::<u64>().ok());
        match (fields[0].as_str(), size(1), size(2), fields[3].as_str()) {
            ("P6", Some(width), Some(height), "255") => Ok(Some((width, height))),
            _ => Err(format!("ffmpeg's output is not a frame: {fields:?}")),
        }
    }

    fn skip(&mut self, count: u64) -> Result<(), String> {
        let skipped = std::io::copy(&mut (&mut self.output).take(count), &mut std::io::sink());
        self.beat();
        match skipped {
            Ok(read) if read == count => Ok(()),
            Ok(_) => Err(self.ended()),
            Err(e) => Err(self.failed(&e)),
        }
    }

    fn bytes(&mut self, count: u64) -> Result<Vec<u8>, String> {
        let mut bytes = Vec::new();
        let read = (&mut self.output).take(count).read_to_end(&mut bytes);
        self.beat();
        match read {
            Ok(read) if read as u64 == count => Ok(bytes),
            Ok(_) => Err(self.ended()),
            Err(e) => Err(self.failed(&e)),
        }
    }

    /// Message for a child that ended within a frame.
    fn ended(&mut self) -> String {
        self.finish().err().unwrap_or_else(|| format!("{} ended within a frame", self.program))
    }

    /// Waits for a child that has written everything; an error on failure.
    fn finish(&mut self) -> Result<(), String> {
        // The watchdog runs until the child has exited; its messages end then.
        let words = self.errors.take().and_then(|thread| thread.join().ok()).unwrap_or_default();
        let status = self.child.lock().unwrap_or_else(PoisonError::into_inner).wait();
        match status {
            Ok(status) if status.success() => Ok(()),
            Ok(status) if words.is_empty() => Err(format!(
                "{} ended with {status}, perhaps after {} s without a frame",
                self.program,
                PATIENCE.as_secs()
            )),
            Ok(_) => Err(format!("{}: {words}", self.program)),
            Err(e) => Err(self.failed(&e)),
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        {
            let mut child = self.child.lock().unwrap_or_else(PoisonError::into_inner);
            child.kill().ok();
            child.wait().ok();
        }
        self.alive = None;
        for thread in [self.watcher.take()].into_iter().flatten() {
            thread.join().ok();
        }
        if let Some(errors) = self.errors.take() {
            errors.join().ok();
        }
    }
}
