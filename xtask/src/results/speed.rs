//! Tables of time and memory.

use std::path::Path;

use super::page::table;
use super::records::{Records, Row, grouped, groups, newest, origin};
use super::{Fault, RECORDS};
use crate::statistics::{median, spread};

/// Wall time of the quickstart by machine.
pub(super) fn quickstart_time(records: &Path) -> Result<String, Fault> {
    let records = Records::read(records, "quickstart.csv")?;
    let mut rows = Vec::new();
    for ([device, threads], of) in groups(records.rows(), |row| row.texts(["device", "threads"]))? {
        let of = newest(of, "recorded")?;
        let current: Vec<&Row> = of
            .into_iter()
            .filter(|row| row.text("program").is_ok_and(|p| p == "current"))
            .collect();
        let seconds = median(numbers(&current, "seconds")?);
        let origin = origin(&current, "recorded")?;
        rows.push(format!("{seconds:.1} s on {device}, {threads} threads ({origin})"));
    }
    Ok(format!("Wall time of the quickstart: {}.", rows.join("; ")))
}

/// Time and memory against PyTorch, by machine and element type.
pub(super) fn peers(records: &Path) -> Result<String, Fault> {
    crate::bench_peers::summary(&records.join("peers.csv"))
        .map_err(|error| Fault::new(format!("{RECORDS}/peers.csv"), 0, format!("{error:#}")))
}

/// Growth of time from the smallest to the largest size of each curve.
pub(super) fn growth(records: &Path) -> Result<String, Fault> {
    let records = Records::read(records, "growth.csv")?;
    let mut rows = Vec::new();
    for ([curve, axis], of) in groups(records.rows(), |row| row.texts(["curve", "axis"]))? {
        let mut points = Vec::new();
        for (at, rounds) in groups(of, |row| row.number("at"))? {
            points.push((at, median(numbers(&rounds, "seconds")?)));
        }
        points.sort_by(|a, b| a.0.total_cmp(&b.0));
        let [Some(&(from, first)), Some(&(to, last))] = [points.first(), points.last()] else {
            continue;
        };
        rows.push(format!(
            "- {curve}: {axis} from {} to {} ({:.1} times) takes {:.1} times the time",
            grouped(from),
            grouped(to),
            to / from,
            last / first
        ));
    }
    Ok(rows.join("\n"))
}

/// Loader against a DataLoader, and shards against plain reading.
pub(super) fn loader(records: &Path) -> Result<String, Fault> {
    let records = Records::read(records, "loader.csv")?;
    let mut rows = Vec::new();
    for ([row, device], of) in groups(records.rows(), |row| row.texts(["row", "device"]))? {
        let of = newest(of, "date")?;
        let (title, unit, scale) = match row {
            "epoch" => ("decode, resize, normalize, batch; beside DataLoader", "images/s", 1.0),
            "shard" => ("images of an open shard; beside plain reading", "MB/s", 1e-6),
            other => return Err(of[0].fault(format!("there is no row {other}"))),
        };
        let mut ours = Vec::new();
        let mut theirs = Vec::new();
        for row in &of {
            let rate = row.number("count")? / row.number("seconds")? * scale;
            if row.text("side")? == "aurora" { &mut ours } else { &mut theirs }.push(rate);
        }
        if ours.len() != theirs.len() {
            return Err(of[0].fault("a pair lacks one of its sides"));
        }
        let ratios = ours.iter().zip(&theirs).map(|(ours, theirs)| ours / theirs);
        let [middle, least, greatest] = spread(ratios);
        rows.push([
            title.to_owned(),
            format!("{middle:.2} ({least:.2} to {greatest:.2})"),
            format!("{} and {} {unit}", grouped(median(ours)), grouped(median(theirs))),
            format!("{device}, {} threads; {}", of[0].text("threads")?, origin(&of, "date")?),
        ]);
    }
    let head = ["work", "speed ratio (range)", "Aurora and the other", "machine"];
    Ok(table(head, &rows))
}

/// Peak memory of loading a checkpoint by the file's size, and of a loader over its run.
pub(super) fn memory(records: &Path) -> Result<String, Fault> {
    let records = Records::read(records, "loading.csv")?;
    let mut rows = Vec::new();
    for (case, of) in groups(records.rows(), |row| row.text("case"))? {
        let value = |wanted: &str| {
            let row = of.iter().find(|row| row.text("measure").is_ok_and(|text| text == wanted));
            row.map(|row| row.number("value")).transpose()
        };
        let text = match (value("file")?, value("peak")?) {
            (Some(file), Some(peak)) => {
                let mib = peak / f64::from(1 << 20);
                format!("peak {mib:.1} MiB, {:.3} of the file", peak / file)
            }
            _ => {
                let values = of.iter().map(|row| {
                    let [measure, value, unit] = row.texts(["measure", "value", "unit"])?;
                    Ok(format!("{measure} {value} {unit}"))
                });
                values.collect::<Result<Vec<String>, Fault>>()?.join(", ")
            }
        };
        rows.push(format!("- {case}: {text} ({})", origin(&of, "recorded")?));
    }
    Ok(rows.join("\n"))
}

/// Numbers in a column.
fn numbers(rows: &[&Row], column: &str) -> Result<Vec<f64>, Fault> {
    rows.iter().map(|row| row.number(column)).collect()
}

#[cfg(test)]
mod tests {
    use super::super::records::tests::folder;
    use super::*;

    type Table = fn(&Path) -> Result<String, Fault>;

    #[test]
    fn tables_of_small_records() {
        let cases: [(Table, &str, &str, &str); 4] = [
            (
                quickstart_time,
                "quickstart.csv",
                "recorded,commit,device,threads,program,round,seconds\n2026-01-01,a,cpu,2,old,1,9\n\
                 2026-01-01,a,cpu,2,current,1,4\n2026-01-01,a,cpu,2,current,2,5\n",
                "Wall time of the quickstart: 4.5 s on cpu, 2 threads (2026-01-01, commit a).",
            ),
            (
                growth,
                "growth.csv",
                "curve,axis,at,round,seconds\na step,pairs,16,1,4\na step,pairs,4,1,1\na step,pairs,4,2,3\n",
                "- a step: pairs from 4 to 16 (4.0 times) takes 2.0 times the time",
            ),
            (
                loader,
                "loader.csv",
                "date,commit,device,threads,row,side,pair,seconds,count\n1,a,cpu,2,epoch,aurora,1,1,400\n\
                 1,a,cpu,2,epoch,pytorch,1,1,400\n2,b,cpu,2,epoch,aurora,1,1,400\n2,b,cpu,2,epoch,pytorch,1,4,400\n",
                "| 4.00 (4.00 to 4.00) | 400 and 100 images/s | cpu, 2 threads; 2, commit b |",
            ),
            (
                memory,
                "loading.csv",
                "recorded,commit,case,measure,value,unit\n1,a,x,file,1048576,bytes\n1,a,x,peak,2097152,bytes\n",
                "- x: peak 2.0 MiB, 2.000 of the file (1, commit a)",
            ),
        ];
        for (table, name, record, line) in cases {
            let text = table(folder(&[(name, record)]).path()).unwrap();
            assert!(text.contains(line), "{name}: {text}");
        }
    }

    #[test]
    fn a_pair_has_two_sides() {
        let record = "date,commit,device,threads,row,side,pair,seconds,count\n1,a,cpu,2,epoch,aurora,1,1,400\n";
        assert!(loader(folder(&[("loader.csv", record)]).path()).is_err());
    }
}
