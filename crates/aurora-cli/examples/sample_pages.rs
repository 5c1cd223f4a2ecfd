//! Sample report and search pages from made-up numbers and drawn shapes, without a tuning run:
//!
//! ```text
//! cargo run -p aurora-cli --example sample_pages -- /tmp/pages
//! ```

use std::path::PathBuf;

use anyhow::{Context, Result};
use aurora_cli::page::{
    CaptionRow, Chart, EmbeddedImage, Fact, Gain, Highlight, Hit, RecallAtK, ReferenceLine,
    ReportPage, SearchHit, SearchPage, Series,
};
use image::{ImageFormat, Rgb, RgbImage};

fn main() -> Result<()> {
    let folder = PathBuf::from(std::env::args().nth(1).unwrap_or_else(|| "runs/pages".to_owned()));
    std::fs::create_dir_all(&folder).with_context(|| format!("create {}", folder.display()))?;
    std::fs::write(folder.join("report.html"), report()?.render())?;
    std::fs::write(folder.join("search.html"), search()?.render())?;
    Ok(())
}

fn report() -> Result<ReportPage> {
    let baseline = RecallAtK { image_to_text: [1.3, 5.2, 9.1], text_to_image: [1.7, 6.0, 10.6] };
    let tuned = RecallAtK { image_to_text: [6.4, 17.0, 25.5], text_to_image: [5.9, 18.3, 27.7] };
    let random_baseline =
        RecallAtK { image_to_text: [0.3, 1.6, 3.2], text_to_image: [0.3, 1.6, 3.2] };
    let mut captions = Vec::new();
    for (index, caption) in
        ["a red circle", "a green square", "</li><script>a blue circle", "a very long caption that goes on about a yellow square, its corners, its sides and the paper that it was drawn on", "violet"]
            .iter()
            .enumerate()
    {
        captions.push(CaptionRow {
            caption: (*caption).to_owned(),
            baseline: hits(index, 3 + index)?,
            tuned: hits(index, index % 3)?,
            rank_baseline: Some(4 + index * 7),
            rank_tuned: Some(1 + index % 3),
        });
    }
    Ok(ReportPage {
        title: "aurora quickstart".to_owned(),
        tuned:
            "A CP adapter of rank 16 was tuned on 1,200 Noto emoji; the backbone, pretrained on \
                openclipart drawings, stayed frozen."
                .to_owned(),
        test: "The 316 test images show things that no training image showed.".to_owned(),
        gain: Gain::Recall { baseline, tuned, random_baseline: Some(random_baseline) },
        facts: facts(),
        charts: charts(),
        captions,
        answers: Vec::new(),
        config: "seed = 1\n\n[adapter]\nkind = \"cp\"\nrank = 16\n".to_owned(),
    })
}

fn facts() -> Vec<Fact> {
    [
        ("Trainable parameters", "98,304", "1.6 % of the backbone's 6,123,456"),
        ("Adapter on disk", "401 KB", "adapter/adapter_model.safetensors"),
        ("Time", "2 min 11 s", "600 steps, 290 pairs per second"),
        ("Seed", "1", "the same seed gives the same run"),
        ("Test pairs", "316", "of concepts never trained on"),
        ("Best checkpoint", "step 500", "by mean recall on validation"),
    ]
    .map(|(label, value, note)| Fact {
        label: label.to_owned(),
        value: value.to_owned(),
        note: note.to_owned(),
    })
    .to_vec()
}

fn charts() -> Vec<Chart> {
    let steps = || (0..600).map(f64::from);
    let noise = |i: f64| ((i * 12.9898).sin() * 43758.5453).fract() * 0.25;
    let series = |name: &str, points: Vec<(f64, f64)>| Series { name: name.to_owned(), points };
    let validation: Vec<(f64, f64)> =
        (0..=6).map(|i| (f64::from(i) * 100.0, 14.0 - 8.0 * (-f64::from(i) / 2.0).exp())).collect();
    vec![
        Chart {
            title: "Losses".to_owned(),
            note: "Falling is good; they are noisy.".to_owned(),
            x_label: "step".to_owned(),
            y_label: "loss".to_owned(),
            series: vec![
                series(
                    "ITC",
                    steps().map(|i| (i, 1.5 + 3.0 * (-i / 150.0).exp() + noise(i))).collect(),
                ),
                series(
                    "ITM",
                    steps().map(|i| (i, 0.4 + 0.3 * (-i / 200.0).exp() + noise(i + 7.0))).collect(),
                ),
            ],
            ..Chart::default()
        },
        Chart {
            title: "Validation".to_owned(),
            note: "The checkpoint with the highest mean recall is kept.".to_owned(),
            x_label: "step".to_owned(),
            y_label: "mean recall, %".to_owned(),
            highlight: validation.last().map(|at| Highlight { label: "kept".to_owned(), at: *at }),
            series: vec![series("validation", validation)],
            reference: Some(ReferenceLine { label: "untuned".to_owned(), value: 6.0 }),
        },
        Chart {
            title: "Change of the weights".to_owned(),
            x_label: "step".to_owned(),
            y_label: "mean |ΔW| / |W|".to_owned(),
            series: vec![series(
                "relative change",
                steps().map(|i| (i, 0.03 * (1.0 - (-i / 200.0).exp()))).collect(),
            )],
            ..Chart::default()
        },
        Chart {
            title: "Learning rate".to_owned(),
            x_label: "step".to_owned(),
            y_label: "learning rate".to_owned(),
            series: vec![series(
                "learning rate",
                steps()
                    .map(|i| (i, 5e-4 * (1.0 + (i / 600.0 * std::f64::consts::PI).cos())))
                    .collect(),
            )],
            ..Chart::default()
        },
    ]
}

fn hits(shift: usize, right: usize) -> Result<Vec<Hit>> {
    (0..5)
        .map(|i| {
            let image = shape(shift * 5 + i)?;
            Ok(Hit { image, score: 0.61 - 0.05 * i as f64, right: i == right })
        })
        .collect()
}

fn search() -> Result<SearchPage> {
    let mut hits = Vec::new();
    for i in 0..12usize {
        hits.push(SearchHit {
            image: shape(i)?,
            caption: if i.is_multiple_of(2) {
                "a drawing of a shape".to_owned()
            } else {
                String::new()
            },
            scores: vec![
                ("ITM logit".to_owned(), 0.9 - 0.05 * i as f64),
                ("ITC similarity".to_owned(), 0.4),
            ],
        });
    }
    Ok(SearchPage {
        query: "a red <fruit>".to_owned(),
        model: "the embedded backbone with runs/quickstart/adapter".to_owned(),
        images: "the embedded Noto emoji".to_owned(),
        searched: 1585,
        hits,
    })
}

/// A circle or a square in one of six colors.
fn shape(index: usize) -> Result<EmbeddedImage> {
    const COLORS: [[u8; 3]; 6] = [
        [214, 48, 49],
        [39, 148, 84],
        [52, 101, 205],
        [224, 172, 24],
        [130, 66, 178],
        [90, 90, 90],
    ];
    let color = Rgb(COLORS[index % COLORS.len()]);
    let circle = index.is_multiple_of(2);
    let image = RgbImage::from_fn(96, 96, |x, y| {
        let (dx, dy) = (x as i32 - 48, y as i32 - 48);
        let inside = if circle { dx * dx + dy * dy < 1500 } else { dx.abs().max(dy.abs()) < 34 };
        if inside { color } else { Rgb([255, 255, 255]) }
    });
    let mut bytes = std::io::Cursor::new(Vec::new());
    image.write_to(&mut bytes, ImageFormat::Png)?;
    let name = format!("{}-{index}.png", if circle { "circle" } else { "square" });
    EmbeddedImage::new(name, bytes.get_ref()).context("a PNG is an image")
}
