//! MP4 demuxing: byte ranges and timestamps of the samples in the video track.
//!
//! The boxes are parsed by `mp4-atom`; the sample tables are combined here. No count is trusted
//! beyond the file's length, and contradictory tables are errors.

use mp4_atom::{
    Atom as _, Avcc, Codec, Decode as _, FourCC, Header, Moov, Stbl, StszSamples, Trak,
};

/// Encoded picture of a track.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct TrackSample {
    /// Byte offset in the file.
    pub start: usize,
    /// Length in bytes.
    pub length: usize,
    /// Presentation time in ticks of the track.
    pub shown: i64,
    /// Index of its sample description.
    pub description: usize,
}

/// H.264 track.
#[derive(Debug)]
pub(super) struct Track {
    /// Samples in decoding order.
    pub samples: Vec<TrackSample>,
    /// Parameter sets and NAL length size of each sample description.
    pub descriptions: Vec<Avcc>,
    /// Ticks per second.
    pub timescale: f64,
    /// Average duration of a sample in ticks.
    pub duration: f64,
    /// Presentation range in ticks: samples before the first or from the second on are decoded and
    /// not shown.
    pub shown: (i64, i64),
    /// Clockwise rotation in quarter turns.
    pub turns: u8,
}

/// Video track of a file.
pub(super) fn track(data: &[u8]) -> Result<Track, String> {
    let moov = find_moov(data)?;
    let moov = Moov::decode_body(&mut &*moov).map_err(|e| format!("its moov box: {e}"))?;
    if moov.mvex.is_some() {
        return Err(
            "it is a fragmented MP4; `ffmpeg -i IN -c copy OUT.mp4` makes a plain one".into()
        );
    }
    let is_video = |trak: &&Trak| trak.mdia.hdlr.handler == FourCC::new(b"vide");
    let trak = moov.trak.iter().find(is_video).ok_or("it has no video track")?;
    let stbl = &trak.mdia.minf.stbl;
    let descriptions = descriptions(stbl)?;
    let samples = samples(data, stbl, descriptions.len())?;
    let timescale = f64::from(trak.mdia.mdhd.timescale.max(1));
    let ticks: u64 = stbl.stts.entries.iter().fold(0, |sum, entry| {
        sum.saturating_add(u64::from(entry.sample_count) * u64::from(entry.sample_delta))
    });
    let duration = ticks as f64 / samples.len().max(1) as f64;
    let shown = edit(trak, f64::from(moov.mvhd.timescale.max(1)), timescale);
    Ok(Track { samples, descriptions, timescale, duration, shown, turns: turns(trak) })
}

/// Content of the moov box.
fn find_moov(data: &[u8]) -> Result<&[u8], String> {
    let mut rest = data;
    loop {
        if rest.is_empty() {
            return Err("it has no moov box, which says where its frames are: it is cut, or was \
                        never finished"
                .into());
        }
        let header = Header::decode(&mut rest)
            .map_err(|e| format!("the box at byte {}: {e}", data.len() - rest.len()))?;
        let length = header.size.unwrap_or(rest.len());
        let (content, after) = rest.split_at_checked(length).ok_or_else(|| {
            format!(
                "it is cut: {} of the {length} bytes of its {} box are there",
                rest.len(),
                header.kind
            )
        })?;
        if header.kind == Moov::KIND {
            return Ok(content);
        }
        rest = after;
    }
}

fn descriptions(stbl: &Stbl) -> Result<Vec<Avcc>, String> {
    let mut found = Vec::new();
    for codec in &stbl.stsd.codecs {
        match codec {
            Codec::Avc1(entry) => found.push(entry.avcc.clone()),
            Codec::Avc3(entry) => found.push(entry.avcc.clone()),
            other => return Err(format!("its codec is {}, not H.264", name(other))),
        }
    }
    if found.is_empty() {
        return Err("its video track says nothing of its codec".into());
    }
    Ok(found)
}

fn name(codec: &Codec) -> String {
    match codec {
        Codec::Unknown(kind, _) => kind.to_string(),
        known => {
            let text = format!("{known:?}");
            text.split(['(', ' ']).next().unwrap_or_default().to_uppercase()
        }
    }
}

/// Samples from the tables of sizes, chunks and times.
fn samples(data: &[u8], stbl: &Stbl, descriptions: usize) -> Result<Vec<TrackSample>, String> {
    let sizes: Box<dyn Iterator<Item = u32> + '_> = match &stbl.stsz.samples {
        StszSamples::Different { sizes } => Box::new(sizes.iter().copied()),
        // A constant size table takes no bytes per sample, but the samples do.
        StszSamples::Identical { count, size } => {
            if u64::from(*count) * u64::from(*size) > data.len() as u64 {
                return Err(format!("its {count} frames of {size} bytes are more than the file"));
            }
            Box::new(std::iter::repeat_n(*size, *count as usize))
        }
    };
    let mut places = Places::new(stbl)?;
    let mut durations =
        Runs::new(stbl.stts.entries.iter().map(|e| (e.sample_count, i64::from(e.sample_delta))));
    let offsets = stbl.ctts.iter().flat_map(|ctts| &ctts.entries);
    let mut offsets = Runs::new(offsets.map(|e| (e.sample_count, e.sample_offset)));
    let mut decoded = 0i64;
    let mut samples = Vec::new();
    for (index, size) in sizes.enumerate() {
        let wrong = |what: &str| format!("frame {index} (in coding order): {what}");
        let (start, description) =
            places.next(u64::from(size)).ok_or_else(|| wrong("no chunk holds it"))?;
        let duration = durations.next().ok_or_else(|| wrong("its time is not given"))?;
        // Tracks without reordering have no composition offsets.
        let offset = offsets.next().unwrap_or(0);
        if description == 0 || description as usize > descriptions {
            return Err(wrong("its description is not there"));
        }
        let end = start.checked_add(u64::from(size)).filter(|&end| end <= data.len() as u64);
        if end.is_none() {
            return Err(wrong(&format!(
                "it lies past the end of the file ({} bytes): the file is cut",
                data.len()
            )));
        }
        if size > 0 {
            samples.push(TrackSample {
                start: start as usize,
                length: size as usize,
                shown: decoded.saturating_add(offset),
                description: description as usize - 1,
            });
        }
        decoded = decoded.saturating_add(duration);
    }
    if samples.is_empty() {
        return Err("its video track has no frame".into());
    }
    Ok(samples)
}

/// Run-length encoded values: counts and values.
struct Runs<I> {
    runs: I,
    left: u32,
    value: i64,
}

impl<I: Iterator<Item = (u32, i64)>> Runs<I> {
    fn new(runs: I) -> Self {
        Self { runs, left: 0, value: 0 }
    }

    fn next(&mut self) -> Option<i64> {
        while self.left == 0 {
            (self.left, self.value) = self.runs.next()?;
        }
        self.left -= 1;
        Some(self.value)
    }
}

/// Chunk iterator: byte offsets of consecutive samples.
struct Places<'a> {
    stbl: &'a Stbl,
    /// Current chunk, from 0, and the samples left in it.
    chunk: usize,
    left: u32,
    /// Sample-to-chunk entry of the current chunk.
    entry: usize,
    at: u64,
    begun: bool,
}

impl<'a> Places<'a> {
    fn new(stbl: &'a Stbl) -> Result<Self, String> {
        let ordered = stbl.stsc.entries.windows(2).all(|e| e[0].first_chunk < e[1].first_chunk);
        if !ordered || stbl.stsc.entries.first().is_none_or(|e| e.first_chunk != 1) {
            return Err("its table of chunks is not in order".into());
        }
        Ok(Self { stbl, chunk: 0, left: 0, entry: 0, at: 0, begun: false })
    }

    fn offset(&self, chunk: usize) -> Option<u64> {
        match (&self.stbl.stco, &self.stbl.co64) {
            (Some(table), _) => table.entries.get(chunk).map(|&at| u64::from(at)),
            (None, Some(table)) => table.entries.get(chunk).copied(),
            (None, None) => None,
        }
    }

    /// Offset of the next sample of `size` bytes, and the number of its description, from 1.
    fn next(&mut self, size: u64) -> Option<(u64, u32)> {
        let entries = &self.stbl.stsc.entries;
        // Each iteration consumes a chunk, and the file holds one offset per chunk.
        while self.left == 0 {
            if self.begun {
                self.chunk += 1;
            }
            self.begun = true;
            let next = entries.get(self.entry + 1);
            if next.is_some_and(|next| next.first_chunk as usize == self.chunk + 1) {
                self.entry += 1;
            }
            self.at = self.offset(self.chunk)?;
            self.left = entries.get(self.entry)?.samples_per_chunk;
        }
        self.left -= 1;
        let start = self.at;
        self.at = self.at.checked_add(size)?;
        Some((start, entries.get(self.entry)?.sample_description_index))
    }
}

/// Presentation range of the edit list in ticks; everything for none or several edits.
fn edit(trak: &Trak, movie: f64, track: f64) -> (i64, i64) {
    let all = (i64::MIN, i64::MAX);
    let Some(list) = trak.edts.as_ref().and_then(|edts| edts.elst.as_ref()) else { return all };
    let mut parts = list.entries.iter().filter_map(|part| Some((part.media_time?, part)));
    let (Some((first, part)), None) = (parts.next(), parts.next()) else { return all };
    let first = i64::try_from(first).unwrap_or(i64::MAX);
    let ticks = (part.segment_duration as f64 * track / movie).ceil() as i64;
    let end = if ticks > 0 { first.saturating_add(ticks) } else { i64::MAX };
    (first, end)
}

/// Clockwise quarter turns of the track's display matrix; 0 for other matrices.
fn turns(trak: &Trak) -> u8 {
    let matrix = &trak.tkhd.matrix;
    match [matrix.a, matrix.b, matrix.c, matrix.d].map(i32::signum) {
        [0, 1, -1, 0] => 1,
        [-1, 0, 0, -1] => 2,
        [0, -1, 1, 0] => 3,
        _ => 0,
    }
}
