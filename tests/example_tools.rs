//! The tools that the examples share.

use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use example_tools::baseline::{AnswerPair, BagOfWords, longer_answer, split_dialogue};
use example_tools::files::{OutputFile, open_text, output_folder};
use example_tools::hf_tokenizer::HfTokenizer;
use example_tools::metrics::Metrics;
use example_tools::plot::{
    Series, TrainingCurves, calibration_diagram, line_chart, training_curves,
};
use example_tools::progress::{Meter, Progress, StepStatus};
use example_tools::statistics::{
    accuracy, calibration, pearson, sigmoid, spearman, wilson_interval,
};
use prefgrad::Error;
use prefgrad::data::{ReadOptions, Tokenizer, read_records, split_by_prompt};

/// A file of the data folder beside the checkout, where there is one.
fn shared(name: &str) -> Option<PathBuf> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../shared/data")
        .join(name);
    if !path.exists() {
        println!("skipped: {} is not there", path.display());
        return None;
    }
    Some(path)
}

fn close(a: f64, b: f64) {
    assert!((a - b).abs() < 1e-12, "{a} is not {b}");
}

mod statistics {
    use super::*;

    /// Newcombe 1998, Statistics in Medicine 17, table I, method 3: 81/263, 15/148, 0/20, 1/29.
    #[test]
    fn wilson_intervals_are_the_published_ones() {
        for (successes, total, low, high) in [
            (81.0, 263, 0.2553, 0.3662),
            (15.0, 148, 0.0624, 0.1605),
            (0.0, 20, 0.0, 0.1611),
            (1.0, 29, 0.0061, 0.1718),
        ] {
            let share = wilson_interval(successes, total);
            assert!((share.low - low).abs() < 5e-5, "{share:?}");
            assert!((share.high - high).abs() < 5e-5, "{share:?}");
        }
        let none = wilson_interval(0.0, 0);
        assert_eq!((none.low, none.high), (0.0, 1.0));
    }

    #[test]
    fn a_tie_is_half_a_success() {
        let share = accuracy(&[1.0, -1.0, 0.0, 3.0]);
        close(share.value, 2.5 / 4.0);
        assert_eq!(
            wilson_interval(9.0, 16).to_string(),
            "56.2 % (33.2 to 76.9, n = 16)"
        );
    }

    #[test]
    fn the_sigmoid_does_not_overflow() {
        assert_eq!(sigmoid(-1e4), 0.0);
        assert_eq!(sigmoid(1e4), 1.0);
        close(sigmoid(0.5) + sigmoid(-0.5), 1.0);
    }

    #[test]
    fn calibration_sees_a_pair_from_the_favoured_side() {
        let sure = (0.9f64 / 0.1).ln();
        let doubtful = (0.6f64 / 0.4).ln();
        // At 90 %: 3 of 4 right. At 60 %: 1 of 2 right.
        let result = calibration(&[sure, sure, -sure, sure, doubtful, -doubtful], 5);
        assert_eq!(result.bins.len(), 2);
        close(result.bins[0].confidence, 0.6);
        close(result.bins[0].accuracy.value, 0.5);
        close(result.bins[1].confidence, 0.9);
        close(result.bins[1].accuracy.value, 0.75);
        close(
            result.expected_error,
            (2.0 / 6.0) * 0.1 + (4.0 / 6.0) * 0.15,
        );
    }

    #[test]
    fn certainty_falls_into_the_last_bin() {
        let result = calibration(&[100.0, -100.0], 10);
        assert_eq!(result.bins.len(), 1);
        close(result.bins[0].confidence, 1.0);
        close(result.expected_error, 0.5);
    }

    #[test]
    fn correlations() {
        let x = [1.0, 2.0, 3.0, 4.0, 5.0];
        // By hand: Σxy = 11, Σxx = 10, Σyy = 14.8.
        let y = [1.0, 2.0, 2.0, 3.0, 6.0];
        close(pearson(&x, &y).unwrap(), 11.0 / (10.0f64 * 14.8).sqrt());
        // The ranks of y are 1, 2.5, 2.5, 4, 5.
        close(spearman(&x, &y).unwrap(), 9.5 / (10.0f64 * 9.5).sqrt());
        let cubes = x.map(|v: f64| -v.powi(3));
        close(spearman(&x, &cubes).unwrap(), -1.0);
        assert!(pearson(&x, &cubes).unwrap() > -0.99);
        assert_eq!(pearson(&x, &[2.0; 5]), None);
        assert_eq!(pearson(&x, &[2.0, 1.0]), None);
        assert_eq!(spearman(&[], &[]), None);
    }
}

mod baselines {
    use super::*;

    #[test]
    fn the_prompt_ends_with_the_last_shared_turn() {
        let pair = split_dialogue(
            "\n\nHuman: a\n\nAssistant: b\n\nHuman: c\n\nAssistant: yes é",
            "\n\nHuman: a\n\nAssistant: b\n\nHuman: c\n\nAssistant: yes è",
        );
        assert_eq!((pair.chosen, pair.rejected), (" yes é", " yes è"));
        let pair = split_dialogue("same start, one", "same start, two");
        assert_eq!(pair.chosen, "same start, one");
    }

    #[test]
    fn length_is_counted_in_characters() {
        let pair = |chosen, rejected| AnswerPair { chosen, rejected };
        let pairs = [pair("äöü", "abcd"), pair("abcde", "abcd"), pair("ab", "äö")];
        close(longer_answer(&pairs).value, 0.5);
    }

    /// One word, once in each chosen answer: with x = log 2, θ solves λ θ = n x σ(-x θ).
    #[test]
    fn the_fit_is_the_minimum() {
        let pairs = [AnswerPair {
            chosen: "Good!",
            rejected: "",
        }; 8];
        let x = 2f64.ln();
        let mut theta = 0.0;
        for _ in 0..200 {
            theta = 0.5 * theta + 0.5 * (8.0 * x * sigmoid(-x * theta) / 2.0);
        }
        let model = BagOfWords::fit(&pairs, 2.0);
        assert!((model.gap(&pairs[0]) - x * theta).abs() < 1e-6);
        let swapped = AnswerPair {
            chosen: "unknown words",
            rejected: "good GOOD",
        };
        assert!((model.gap(&swapped) + 3f64.ln() * theta).abs() < 1e-6);
    }

    #[test]
    fn clear_data_is_fitted_closely() {
        let pairs = [AnswerPair {
            chosen: "good",
            rejected: "bad",
        }; 20];
        let gap = BagOfWords::fit_cross_validated(&pairs).gap(&pairs[0]);
        assert_eq!(gap, BagOfWords::fit(&pairs, 1.0).gap(&pairs[0]));
        assert!(gap > BagOfWords::fit(&pairs, 3.0).gap(&pairs[0]));
    }

    /// Baselines on the held-out part of real comparisons.
    fn on_file(name: &str) -> Option<(f64, f64)> {
        let path = shared(name)?;
        let reader = open_text(&path).unwrap();
        let read = read_records(reader, name, ReadOptions::default()).unwrap();
        let (train, held_out) = split_by_prompt(&read.records, 0.15, 0).unwrap();
        let pairs = |indices: &[usize]| -> Vec<AnswerPair> {
            let of = |index: &usize| {
                let responses = &read.records[*index].responses;
                split_dialogue(&responses[0], &responses[1])
            };
            indices.iter().map(of).collect()
        };
        let (train, held_out) = (pairs(&train), pairs(&held_out));
        let longer = longer_answer(&held_out);
        let words = BagOfWords::fit_cross_validated(&train).accuracy(&held_out);
        println!("{name}: longer answer {longer}, bag of words {words}");
        Some((longer.value, words.value))
    }

    #[test]
    fn helpful_answers_are_longer_and_have_their_words() {
        if let Some((longer, words)) = on_file("pairwise/hh-helpful-base-test.jsonl.gz") {
            assert!((0.52..0.63).contains(&longer), "{longer}");
            assert!((0.57..0.68).contains(&words), "{words}");
        }
    }

    #[test]
    fn harmless_answers_are_not_longer_but_have_their_words() {
        if let Some((longer, words)) = on_file("pairwise/hh-harmless-base-test.jsonl.gz") {
            assert!((0.41..0.52).contains(&longer), "{longer}");
            assert!((0.59..0.70).contains(&words), "{words}");
        }
    }
}

mod files {
    use super::*;

    fn gzip(text: &str) -> Vec<u8> {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        encoder.write_all(text.as_bytes()).unwrap();
        encoder.finish().unwrap()
    }

    fn read(path: &Path) -> std::io::Result<String> {
        let mut text = String::new();
        open_text(path).unwrap().read_to_string(&mut text)?;
        Ok(text)
    }

    #[test]
    fn compression_is_told_by_content_not_by_name() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("data.jsonl");
        std::fs::write(&path, "plain\n").unwrap();
        assert_eq!(read(&path).unwrap(), "plain\n");
        // Files that were compressed one by one and joined are one file.
        std::fs::write(&path, [gzip("one\n"), gzip("two\n")].concat()).unwrap();
        assert_eq!(read(&path).unwrap(), "one\ntwo\n");
        std::fs::write(&path, "").unwrap();
        assert_eq!(read(&path).unwrap(), "");
    }

    #[test]
    fn a_compressed_file_that_is_cut_off_does_not_pass_for_a_short_one() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("data.gz");
        let whole = gzip(&"a line of text\n".repeat(1000));
        std::fs::write(&path, &whole[..whole.len() - 9]).unwrap();
        let error = read(&path).unwrap_err();
        assert_eq!(error.kind(), std::io::ErrorKind::UnexpectedEof);
    }

    #[test]
    fn missing_files_and_folders_are_named() {
        let folder = tempfile::tempdir().unwrap();
        for path in [folder.path().join("nowhere.jsonl"), folder.path().into()] {
            let Err(Error::Io { path: named, .. }) = open_text(&path) else {
                panic!("opened {}", path.display());
            };
            assert_eq!(named, path);
        }
    }

    #[test]
    fn an_output_folder_is_made_and_left_empty() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("runs/first");
        output_folder(&path).unwrap();
        output_folder(&path).unwrap();
        assert_eq!(std::fs::read_dir(&path).unwrap().count(), 0);
    }

    #[test]
    fn an_output_folder_that_cannot_be_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("file");
        std::fs::write(&file, "").unwrap();
        for path in [file.clone(), file.join("below"), "/proc/below".into()] {
            let error = output_folder(&path).unwrap_err();
            assert!(matches!(error, Error::Io { .. }));
            assert!(
                error.to_string().contains(path.to_str().unwrap()),
                "{error}"
            );
        }
    }

    #[test]
    fn an_output_file_appears_when_it_is_complete() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("scores.jsonl");
        let mut output = OutputFile::create(&path).unwrap();
        writeln!(output, "one").unwrap();
        output.flush().unwrap();
        assert!(!path.exists());
        output.commit().unwrap();
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "one\n");

        let mut abandoned = OutputFile::create(&path).unwrap();
        writeln!(abandoned, "two").unwrap();
        drop(abandoned);
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "one\n");
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
    }

    #[test]
    fn an_output_file_has_a_place() {
        let folder = tempfile::tempdir().unwrap();
        assert!(OutputFile::create(folder.path()).is_err());
        let error = OutputFile::create(&folder.path().join("no/x")).unwrap_err();
        assert!(error.to_string().contains("no/x"), "{error}");
    }

    #[cfg(unix)]
    #[test]
    fn a_device_is_written_to_and_stays() {
        use std::os::unix::fs::FileTypeExt;
        let device = Path::new("/dev/null");
        let mut output = OutputFile::create(device).unwrap();
        writeln!(output, "gone").unwrap();
        output.commit().unwrap();
        let kind = std::fs::metadata(device).unwrap().file_type();
        assert!(kind.is_char_device());
    }
}

mod metrics {
    use super::*;

    fn steps(folder: &Path) -> Vec<(u64, serde_json::Value)> {
        let text = std::fs::read_to_string(folder.join("metrics.jsonl")).unwrap();
        text.lines()
            .map(|line| {
                let object: serde_json::Value = serde_json::from_str(line).unwrap();
                (object["step"].as_u64().unwrap(), object["loss"].clone())
            })
            .collect()
    }

    #[test]
    fn each_step_is_on_disk_at_once() {
        let folder = tempfile::tempdir().unwrap();
        let mut metrics = Metrics::create(folder.path()).unwrap();
        metrics.record(1, &[("loss", 0.5), ("lr", 1e-3)]).unwrap();
        let text = std::fs::read_to_string(folder.path().join("metrics.jsonl")).unwrap();
        assert_eq!(text, "{\"step\":1,\"loss\":0.5,\"lr\":0.001}\n");
        metrics.record(2, &[("loss", f64::NAN)]).unwrap();
        assert_eq!(steps(folder.path())[1], (2, serde_json::Value::Null));
    }

    #[test]
    fn a_resumed_run_records_no_step_twice() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("metrics.jsonl");
        let mut metrics = Metrics::create(folder.path()).unwrap();
        for step in 1..=5 {
            metrics.record(step, &[("loss", step as f64)]).unwrap();
        }
        drop(metrics);
        let mut file = std::fs::File::options().append(true).open(&path).unwrap();
        file.write_all(b"{\"step\":6,\"lo").unwrap();

        let mut metrics = Metrics::resume(folder.path(), 3).unwrap();
        metrics.record(4, &[("loss", 40.0)]).unwrap();
        let expected = [(1, 1.0), (2, 2.0), (3, 3.0), (4, 40.0)];
        assert_eq!(steps(folder.path()), expected.map(|(s, l)| (s, l.into())));

        drop(Metrics::create(folder.path()).unwrap());
        assert!(steps(folder.path()).is_empty());
    }

    /// The fields of the records in an event file, each record checked: length, both checksums.
    fn events(path: &Path) -> Vec<Vec<u8>> {
        let bytes = std::fs::read(path).unwrap();
        let masked = |data: &[u8]| {
            let sum = bitwise_crc32c(data);
            sum.rotate_right(15).wrapping_add(0xa282ead8).to_le_bytes()
        };
        let mut rest = bytes.as_slice();
        let mut events = Vec::new();
        while !rest.is_empty() {
            let length = u64::from_le_bytes(rest[..8].try_into().unwrap()) as usize;
            assert_eq!(rest[8..12], masked(&rest[..8]));
            let event = &rest[12..12 + length];
            assert_eq!(rest[12 + length..16 + length], masked(event));
            events.push(event.to_vec());
            rest = &rest[16 + length..];
        }
        events
    }

    /// CRC-32C by its definition, a bit at a time.
    fn bitwise_crc32c(data: &[u8]) -> u32 {
        !data.iter().fold(!0u32, |crc, &byte| {
            (0..8).fold(crc ^ u32::from(byte), |crc, _| {
                (crc >> 1) ^ (0x82f63b78 & (crc & 1).wrapping_neg())
            })
        })
    }

    #[test]
    fn event_files_hold_the_scalars_and_a_new_one_is_made_each_run() {
        assert_eq!(bitwise_crc32c(b"123456789"), 0xe3069283);
        let folder = tempfile::tempdir().unwrap();
        let mut metrics = Metrics::create(folder.path()).unwrap();
        metrics.record(300, &[("loss", 0.5)]).unwrap();
        drop(metrics);
        drop(Metrics::resume(folder.path(), 300).unwrap());
        let mut files: Vec<_> = std::fs::read_dir(folder.path())
            .unwrap()
            .map(|entry| entry.unwrap().path())
            .filter(|path| path.to_str().unwrap().contains("tfevents"))
            .collect();
        files.sort();
        assert_eq!(files.len(), 2);

        // After the nine bytes of the time: step 300, a summary with a value of tag and number.
        let first = events(&files[0]);
        assert_eq!(first.len(), 3);
        assert_eq!(first[0][9..], *b"\x1a\x0dbrain.Event:2");
        let mut expected = b"\x10\xac\x02\x2a\x0d\x0a\x0b\x0a\x04loss\x15".to_vec();
        expected.extend(0.5f32.to_le_bytes());
        assert_eq!(first[2][9..], expected);
        // The second file starts at step 301 with `SessionLog { status: START }`.
        let second = events(&files[1]);
        assert_eq!(second[1][9..], *b"\x10\xad\x02\x3a\x02\x08\x01");
    }
}

mod progress {
    use super::*;

    fn status(step: u64, loss: f64) -> StepStatus {
        StepStatus {
            step,
            tokens: 1000,
            loss,
            accuracy: Some(0.75),
        }
    }

    #[test]
    fn speed_and_time_left_follow_the_last_half_minute() {
        let mut meter = Meter::new("training", 100, 200);
        // The first step compiles for a minute, the others take half a second each.
        meter.observe(Duration::from_secs(60), status(101, 0.7));
        for step in 102..=180 {
            let elapsed = 60.0 + 0.5 * (step - 101) as f64;
            meter.observe(Duration::from_secs_f64(elapsed), status(step, 0.7));
        }
        assert!((meter.tokens_per_second().unwrap() - 2000.0).abs() < 40.0);
        let left = meter.time_left().unwrap().as_secs_f64();
        assert!((left - 10.0).abs() < 0.2, "{left}");
    }

    #[test]
    fn a_line_says_it_all() {
        let mut meter = Meter::new("training", 0, 10);
        assert_eq!(meter.message(), "0/10");
        meter.observe(Duration::from_secs(20), status(1, 0.7));
        meter.observe(Duration::from_secs(40), status(2, 0.5));
        assert_eq!(
            meter.line(),
            "training 2/10  loss 0.5947  accuracy 75.0 %  50 tokens/s  2 min 40 s left"
        );
    }

    #[test]
    fn it_needs_no_terminal() {
        let mut progress = Progress::new("training", 0, 2);
        progress.update(status(1, f64::NAN));
        progress.print_line("a line of its own");
        progress.update(status(2, 0.1));
        progress.finish();
    }
}

mod tokenizer {
    use super::*;

    /// Word-level, and asks for truncation and padding.
    const SMALL: &str = r#"{
        "version": "1.0",
        "truncation": {"direction": "Right", "max_length": 2, "strategy": "LongestFirst", "stride": 0},
        "padding": {"strategy": {"Fixed": 9}, "direction": "Right", "pad_to_multiple_of": null,
            "pad_id": 4, "pad_type_id": 0, "pad_token": "<pad>"},
        "added_tokens": [
            {"id": 3, "content": "</s>", "single_word": false, "lstrip": false, "rstrip": false,
                "normalized": false, "special": true},
            {"id": 9, "content": "<pad>", "single_word": false, "lstrip": false, "rstrip": false,
                "normalized": false, "special": true}],
        "normalizer": null,
        "pre_tokenizer": {"type": "Whitespace"},
        "post_processor": null,
        "decoder": null,
        "model": {"type": "WordLevel", "vocab": {"a": 0, "b": 1, "?": 2, "</s>": 3, "<pad>": 9},
            "unk_token": "?"}
    }"#;

    fn small(config: Option<&str>) -> prefgrad::Result<HfTokenizer> {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("tokenizer.json"), SMALL).unwrap();
        if let Some(config) = config {
            std::fs::write(folder.path().join("tokenizer_config.json"), config).unwrap();
        }
        HfTokenizer::load(folder.path())
    }

    #[test]
    fn nothing_is_cut_padded_or_added() {
        let tokenizer = small(None).unwrap();
        assert_eq!(tokenizer.encode("a b a c").unwrap(), [0, 1, 0, 2]);
        assert_eq!(tokenizer.encode("a</s>b").unwrap(), [0, 3, 1]);
        assert_eq!(tokenizer.decode(&[0, 1, 3]).unwrap(), "a b");
        assert_eq!(tokenizer.vocab_size(), 10);
        let error = tokenizer.decode(&[0, 7]).unwrap_err();
        assert!(matches!(error, Error::Model { .. }), "{error}");
    }

    #[test]
    fn special_tokens_come_from_the_configuration_then_from_usual_names() {
        let ids = |config| {
            let tokenizer = small(config).unwrap();
            (tokenizer.eos_token_id(), tokenizer.pad_token_id())
        };
        assert_eq!(ids(None), (Some(3), Some(9)));
        assert_eq!(ids(Some(r#"{"eos_token": null}"#)), (Some(3), Some(9)));
        let config = r#"{"eos_token": {"content": "<pad>"}, "pad_token": "a"}"#;
        assert_eq!(ids(Some(config)), (Some(9), Some(0)));
        let error = small(Some(r#"{"eos_token": "<eot>"}"#)).unwrap_err();
        assert!(error.to_string().contains("<eot>"), "{error}");
    }

    #[test]
    fn what_is_no_tokenizer_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let error = HfTokenizer::load(folder.path()).unwrap_err();
        assert!(matches!(error, Error::Io { .. }), "{error}");
        let path = folder.path().join("tokenizer.json");
        std::fs::write(&path, "{}").unwrap();
        let error = HfTokenizer::load(&path).unwrap_err();
        assert!(matches!(error, Error::Model { .. }), "{error}");
    }

    #[test]
    fn gpt2() {
        let Some(path) = shared("tokenizer/gpt2-tokenizer.json") else {
            return;
        };
        let tokenizer = HfTokenizer::load(&path).unwrap();
        assert_eq!(tokenizer.vocab_size(), 50257);
        assert_eq!(tokenizer.eos_token_id(), Some(50256));
        assert_eq!(tokenizer.pad_token_id(), None);
        assert_eq!(tokenizer.encode("Hello world").unwrap(), [15496, 995]);
        let text = "\n\nHuman: naïve 123 \u{1F600}?  \n\nAssistant: yes";
        let ids = tokenizer.encode(text).unwrap();
        assert_eq!(tokenizer.decode(&ids).unwrap(), text);
        assert_eq!(
            tokenizer.encode("a<|endoftext|>").unwrap(),
            [64, tokenizer.eos_token_id().unwrap()]
        );
    }
}

mod pictures {
    use super::*;

    /// Width and height from the header of a PNG.
    fn size(path: &Path) -> (u32, u32) {
        let bytes = std::fs::read(path).unwrap();
        assert_eq!(&bytes[..8], b"\x89PNG\r\n\x1a\n");
        let number = |at: usize| u32::from_be_bytes(bytes[at..at + 4].try_into().unwrap());
        (number(16), number(20))
    }

    #[test]
    fn pictures_are_drawn_whatever_the_values() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("picture.png");
        let nothing: [(f64, f64); 0] = [];
        let flat = [(1.0, 0.0), (2.0, 0.0)];
        let wild = [
            (0.0, f64::NAN),
            (1.0, 1e30),
            (2.0, f64::INFINITY),
            (3.0, -4.0),
        ];
        for points in [&nothing[..], &flat, &wild, &[(5.0, 5.0)]] {
            let curves = TrainingCurves {
                title: "A run",
                train_loss: points,
                held_out_loss: points,
                train_accuracy: points,
                held_out_accuracy: points,
                levels: &[("half", 0.5), ("none", f64::NAN)],
            };
            training_curves(&path, &curves).unwrap();
            assert_eq!(size(&path), (1200, 800));
            let series = Series {
                name: "line",
                points,
            };
            line_chart(&path, "Lines", "x", "y", &[series, series]).unwrap();
            assert_eq!(size(&path), (1200, 800));
        }
        for gaps in [&[][..], &[0.0], &[1.0, -2.0, 500.0]] {
            calibration_diagram(&path, "Calibration", &calibration(gaps, 10)).unwrap();
            assert_eq!(size(&path), (1200, 800));
        }
    }

    #[test]
    fn a_picture_without_a_place_is_an_error() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("missing/picture.png");
        let error = line_chart(&path, "Lines", "x", "y", &[]).unwrap_err();
        assert!(format!("{error:#}").contains("missing"), "{error:#}");
    }
}
