//! Table of the kernels' shares of the roofline.

use std::path::Path;

use super::Fault;
use super::page::table;
use super::records::{Records, Row, groups, newest, origin};
use crate::statistics::spread;

/// Records that the benches append to.
const BENCHES: [&str; 6] =
    ["linear.csv", "cp.csv", "attention.csv", "norm.csv", "loss.csv", "optim.csv"];

/// Rows of the table: the title, the bench row of the forward pass, and that of the backward pass.
const OPERATIONS: &[(&str, &str, &str)] = &[
    ("matrix product of candle, for comparison", "product", ""),
    ("linear map", "linear", "linear_backward"),
    ("CP delta, unmerged", "apply", "factor_gradient"),
    ("CP delta, merged", "reconstruct", "adapted_backward"),
    ("attention", "attention", "attention_backward"),
    ("layer norm", "layer_norm", "layer_norm_backward"),
    ("GELU", "gelu", "gelu_backward"),
    ("soft cross-entropy", "soft_cross_entropy", "soft_cross_entropy_backward"),
    ("AdamW", "adamw", ""),
    ("moving average", "average", ""),
];

/// Median share of the ceiling over the shapes of a bench, with its range, for each machine.
pub(super) fn shares(folder: &Path) -> Result<String, Fault> {
    let mut records = Records::read(folder, BENCHES[0])?;
    for name in &BENCHES[1..] {
        records.extend(Records::read(folder, name)?)?;
    }
    let mut text = String::new();
    let machine = |row| Row::texts(row, ["device", "threads"]);
    for ([device, threads], rows) in groups(records.rows(), machine)? {
        // Of rows recorded more than once, the newest.
        let mut current = Vec::new();
        for (_, same) in groups(rows, |row| row.texts(["target", "name", "shape", "type"]))? {
            current.extend(newest(same, "date")?);
        }
        let mut lines = Vec::new();
        for &(title, forward, backward) in OPERATIONS {
            let line = [title.to_owned(), share(&current, forward)?, share(&current, backward)?];
            if line[1..].iter().any(|cell| !cell.is_empty()) {
                lines.push(line);
            }
        }
        for row in &current {
            let name = operation(row)?;
            if !OPERATIONS.iter().any(|(_, forward, back)| [forward, back].contains(&&name)) {
                let list = "OPERATIONS in xtask/src/results/kernels.rs";
                return Err(row.fault(format!("add the operation {name} to {list}")));
            }
        }
        let head = ["kernel", "forward", "backward"];
        text.push_str(&format!(
            "{}\n{device}, {threads} threads; {}.\n\n",
            table(head, &lines),
            origin(&current, "date")?
        ));
    }
    Ok(text)
}

/// Operation of a bench row.
fn operation(row: &Row) -> Result<&str, Fault> {
    let name = row.text("name")?;
    Ok(name.rsplit('/').next().unwrap_or(name))
}

/// Median share of an operation with its range, as `60 % (40 to 70)`; empty without rows.
fn share(rows: &[&Row], wanted: &str) -> Result<String, Fault> {
    let mut shares = Vec::new();
    for row in rows {
        if operation(row)? == wanted {
            shares.push(100.0 * row.number("share")?);
        }
    }
    let [median, least, greatest] = spread(shares.iter().copied());
    Ok(match shares.len() {
        0 => String::new(),
        1 => format!("{median:.0} %"),
        count => format!("{median:.0} % ({least:.0} to {greatest:.0}; {count} shapes)"),
    })
}

#[cfg(test)]
mod tests {
    use super::super::records::tests::folder;
    use super::*;

    fn made(linear: &str) -> Result<String, Fault> {
        let head = "date,commit,device,threads,target,name,shape,type,share\n";
        let file = |rows: &str| format!("{head}{rows}");
        let other = file("1,c,cpu,2,norm,x/gelu,9,f32,1.169\n");
        let mut files = BENCHES.map(|name| (name, other.clone()));
        files[0].1 = file(linear);
        let folder = folder(&files.each_ref().map(|(name, text)| (*name, text.as_str())));
        shares(folder.path())
    }

    #[test]
    fn shares_of_shapes_are_put_together() {
        let text = made(
            "1,c,cpu,2,linear,a/linear,1,f32,0.2\n2,d,cpu,2,linear,a/linear,1,f32,0.4\n\
             1,c,cpu,2,linear,b/linear,2,f32,0.8\n1,c,gpu,1,linear,a/linear_backward,1,f32,0.5\n",
        )
        .unwrap();
        assert!(text.contains("| linear map | 60 % (40 to 80; 2 shapes) |  |"), "{text}");
        assert!(text.contains("| GELU | 117 % (117 to 117; 5 shapes) |  |"), "{text}");
        assert!(
            text.contains("| linear map |  | 50 % |\n\ngpu, 1 threads; 1, commit c."),
            "{text}"
        );
    }

    #[test]
    fn an_operation_without_a_line_is_a_fault() {
        let error = made("1,c,cpu,2,linear,a/new,1,f32,0.2\n").unwrap_err();
        assert_eq!((error.path.as_str(), error.line), ("benches/results/linear.csv", 2));
    }
}
