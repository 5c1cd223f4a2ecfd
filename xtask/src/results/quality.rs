//! Tables of quality: recall after tuning, agreement with other libraries, fuzzing.

use std::path::Path;

use super::Fault;
use super::page::table;
use super::records::{Records, Row, grouped, groups, newest, origin};
use crate::statistics::mean_and_deviation;

/// Recall at the quickstart's own seed: random baseline, before and after.
pub(super) fn quickstart(records: &Path) -> Result<String, Fault> {
    let records = Records::read(records, "recall.csv")?;
    let columns = [
        ("text", "R@1"),
        ("text", "R@5"),
        ("text", "R@10"),
        ("image", "R@1"),
        ("image", "R@5"),
        ("image", "R@10"),
        ("both", "mean"),
    ];
    let mut rows = Vec::new();
    let mut after = Vec::new();
    for (method, title) in [
        ("chance", "by chance"),
        ("untuned", "before tuning"),
        ("cp", "after tuning, CP and heads"),
    ] {
        let of = select(&records, [("split", "test"), ("method", method)])?;
        let of = newest(of, "recorded")?;
        let mut cells = vec![title.to_owned()];
        for (direction, metric) in columns {
            let row = of.iter().find(|row| {
                row.texts(["direction", "metric"]).is_ok_and(|found| found == [direction, metric])
            });
            let value = match (row, of.first()) {
                (Some(row), _) => row.number("value")?,
                (None, Some(first)) => {
                    return Err(first.fault(format!("{method} has no {direction} {metric}")));
                }
                (None, None) => return Err(missing("recall.csv", method)),
            };
            cells.push(format!("{value:.1}"));
        }
        rows.push(cells.try_into().unwrap_or_default());
        after = of;
    }
    let mut validation = Vec::new();
    for method in ["untuned", "cp"] {
        let of = select(&records, [("split", "validation"), ("method", method)])?;
        let of = newest(of, "recorded")?;
        let row = of.first().ok_or_else(|| missing("recall.csv", "validation"))?;
        validation.push(row.number("value")?);
    }
    let head = ["recall, %", "text R@1", "R@5", "R@10", "image R@1", "R@5", "R@10", "mean"];
    Ok(format!(
        "{}\nMean recall on validation: {:.1} before, {:.1} after. {}.",
        table::<8>(head, &rows),
        validation[0],
        validation[1],
        origin(&after, "recorded")?
    ))
}

/// Mean recall by method and seed.
pub(super) fn recall(records: &Path) -> Result<String, Fault> {
    let records = Records::read(records, "recall.csv")?;
    let means = select(&records, [("split", "test"), ("metric", "mean")])?;
    let mut rows = Vec::new();
    let mut used = Vec::new();
    for ((method, rates), of) in groups(means, |row| Ok((row.text("method")?, row.text("rates")?)))?
    {
        // Runs of the same day are one experiment; one seed alone has no spread.
        let mut runs = groups(of, |row| row.text("recorded"))?;
        runs.retain(|(_, of)| of.len() > 1);
        let Some((_, of)) = runs.into_iter().max_by_key(|(day, _)| *day) else { continue };
        // Mean and spread as they were recorded, from more digits than the seeds have, where they were.
        let (mut values, mut recorded) = (Vec::new(), [None; 2]);
        for row in &of {
            match row.text("seed")? {
                "mean" => recorded[0] = Some(row.number("value")?),
                "sd" => recorded[1] = Some(row.number("value")?),
                _ => values.push(row.number("value")?),
            }
        }
        let computed = mean_and_deviation(&values);
        let [mean, deviation] = [0, 1].map(|index| recorded[index].unwrap_or(computed[index]));
        if (mean - computed[0]).abs() > 0.1 {
            return Err(
                of[0].fault(format!("the mean is {mean}, that of its seeds {}", computed[0]))
            );
        }
        let title = match method {
            "untuned" => "none",
            "heads" => "heads alone",
            "cp" => "CP and heads",
            "full" => "full tuning",
            other => other,
        };
        let values: Vec<String> = values.iter().map(|value| format!("{value:.1}")).collect();
        rows.push([
            title.to_owned(),
            rates.to_owned(),
            values.join(", "),
            format!("{mean:.1}"),
            format!("{deviation:.1}"),
        ]);
        used.extend(of);
    }
    let head = ["tuned", "learning rates", "mean recall by seed, %", "mean", "sd"];
    Ok(format!("{}\n{}.", table(head, &rows), origin(&used, "recorded")?))
}

/// Largest differences from the Python libraries.
pub(super) fn agreement(records: &Path) -> Result<String, Fault> {
    let records = Records::read(records, "agreement.csv")?;
    let mut rows = Vec::new();
    for (check, of) in groups(records.rows(), |row| row.text("check"))? {
        let mut cells: [Vec<String>; 4] = Default::default();
        for row in &of {
            let (difference, allowed) = (row.number("difference")?, row.number("allowed")?);
            if difference > allowed {
                return Err(row.fault(format!("{difference} is more than the {allowed} allowed")));
            }
            let [output, unit, compared] = row.texts(["output", "unit", "compared"])?;
            let [difference, largest, allowed] =
                row.texts(["difference", "largest_value", "allowed"])?;
            let difference = match (unit, compared) {
                ("absolute", _) => difference.to_owned(),
                ("relative", _) => format!("{difference} (relative)"),
                (unit, "") => format!("{difference} {unit}"),
                (unit, _) => {
                    format!("{difference} of {} {unit}", grouped(row.number("compared")?))
                }
            };
            for (cells, text) in cells.iter_mut().zip([output, &difference, largest, allowed]) {
                if !text.is_empty() {
                    cells.push(text.to_owned());
                }
            }
        }
        cells[3].dedup();
        let [outputs, differences, largest, allowed] = cells.map(|cells| cells.join(", "));
        rows.push([check.to_owned(), outputs, differences, largest, allowed]);
    }
    let head = ["check", "outputs", "largest difference", "largest value", "allowed"];
    let all: Vec<&Row> = records.rows().iter().collect();
    Ok(format!("{}\n{}.", table(head, &rows), origin(&all, "recorded")?))
}

/// Fuzzing results: inputs tried on each reader, and how many of them failed.
pub(super) fn fuzz(records: &Path) -> Result<String, Fault> {
    let records = Records::read(records, "fuzz.csv")?;
    let mut readers = Vec::new();
    let mut failures = 0.0;
    for (target, of) in groups(records.rows(), |row| row.text("target"))? {
        let mut inputs = 0.0;
        for row in &of {
            inputs += row.number("inputs")?;
            failures += row.number("failures")?;
        }
        readers.push(format!("{target} {}", grouped(inputs)));
    }
    let all: Vec<&Row> = records.rows().iter().collect();
    Ok(format!(
        "Inputs: {}. Crashes, hangs, memory beyond the limit: {failures} ({}).",
        readers.join("; "),
        origin(&all, "recorded")?
    ))
}

/// Rows with these texts in these columns.
fn select<'a, const N: usize>(
    records: &'a Records,
    wanted: [(&str, &str); N],
) -> Result<Vec<&'a Row>, Fault> {
    let mut found = Vec::new();
    for row in records.rows() {
        if row.texts(wanted.map(|(column, _)| column))? == wanted.map(|(_, text)| text) {
            found.push(row);
        }
    }
    Ok(found)
}

/// Fault of a record without the rows that a table is made of.
fn missing(record: &str, of: &str) -> Fault {
    Fault::new(format!("{}/{record}", super::RECORDS), 0, format!("the record has no row of {of}"))
}

#[cfg(test)]
mod tests {
    use super::super::records::tests::folder;
    use super::*;

    const HEAD: &str = "recorded,commit,split,method,rates,seed,direction,metric,value\n";

    #[test]
    fn recall_by_seed_has_mean_and_spread() {
        let rows = "2026-01-01,a,test,cp,0.01,1,both,mean,17.0\n2026-01-01,a,test,cp,0.01,2,both,mean,18.3\n\
                    2026-01-01,a,test,cp,0.01,3,both,mean,17.4\n2026-01-02,b,test,cp,0.01,1,both,mean,16.6\n";
        let folder = folder(&[("recall.csv", &format!("{HEAD}{rows}"))]);
        let text = recall(folder.path()).unwrap();
        assert!(text.contains("| CP and heads | 0.01 | 17.0, 18.3, 17.4 | 17.6 | 0.7 |"), "{text}");
        assert!(text.ends_with("2026-01-01, commit a."), "{text}");
        let error = quickstart(folder.path()).unwrap_err();
        assert_eq!(
            error.to_string(),
            "benches/results/recall.csv:0: the record has no row of chance"
        );
    }

    #[test]
    fn a_difference_that_is_not_allowed_is_a_fault() {
        let head = "recorded,commit,check,output,unit,compared,difference,largest_value,moved_by_adapter,allowed\n";
        let record = |difference: &str| {
            let rows = format!(
                "2026-01-01,a,pass,logits,absolute,,{difference},2.5,,1e-4\n\
                 2026-01-01,a,pass,answer,words,8,0,,,0\n"
            );
            folder(&[("agreement.csv", &format!("{head}{rows}"))])
        };
        let text = agreement(record("6e-6").path()).unwrap();
        assert!(
            text.contains("| pass | logits, answer | 6e-6, 0 of 8 words | 2.5 | 1e-4, 0 |"),
            "{text}"
        );
        let error = agreement(record("6e-3").path()).unwrap_err();
        assert_eq!((error.path.as_str(), error.line), ("benches/results/agreement.csv", 2));
    }

    #[test]
    fn runs_of_a_fuzzer_are_added_up() {
        let rows = "recorded,commit,target,inputs,seconds,failures,peak_mb_at_most\n\
                    2026-01-01,a,shards,1000,5,0,1\n2026-01-02,b,shards,500,6,1,\n";
        let text = fuzz(folder(&[("fuzz.csv", rows)]).path()).unwrap();
        assert!(
            text.contains("Inputs: shards 1,500. Crashes, hangs, memory beyond the limit: 1 (2026"),
            "{text}"
        );
    }
}
