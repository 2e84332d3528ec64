//! Files that cannot be used: each is refused with a message that says which, and what to do.

use super::*;

#[test]
fn a_folder_without_weights_says_what_it_looked_for() {
    let message = refusal(vec![named("config.json", "{}")]);
    assert_says(&message, &[MODEL_FILE, INDEX_FILE]);
    assert!(!message.contains("config.json"), "{message}");
    assert_says(&refusal(vec![]), &["no config.json", "a model's folder?"]);
    let missing = std::path::Path::new("/no/such/folder");
    let message = WeightFiles::open(missing).unwrap_err().to_string();
    assert_says(&message, &["/no/such/folder"]);
}

#[test]
fn pickles_are_refused_and_how_to_convert_them_is_said() {
    for name in ["pytorch_model.bin", "weights.pt", "consolidated.00.pth"] {
        let files = vec![
            named("a.bin", ""),
            named(name, "PK"),
            named("config.json", "{}"),
        ];
        let message = refusal(files);
        assert_says(&message, &["can run any program", "save_pretrained"]);
    }
    let files = vec![named("optimizer.pt", ""), named("pytorch_model.bin", "")];
    assert_says(&refusal(files), &["`pytorch_model.bin`"]);
    for bytes in [
        &b"PK\x03\x04\x00\x00\x08\x08\x00\x00"[..],
        b"\x80\x02\x8a\x0al\xfc\x9cF",
    ] {
        let message = refusal(model(bytes));
        assert_says(&message, &[MODEL_FILE, "a pickle", "save_pretrained"]);
    }
}

#[test]
fn a_git_lfs_pointer_is_told_from_a_damaged_file() {
    let pointer = "version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 548118077\n";
    assert_says(&refusal(model(pointer)), &[MODEL_FILE, "git lfs pull"]);
    let message = refusal(vec![named(INDEX_FILE, pointer)]);
    assert_says(&message, &[INDEX_FILE, "git lfs pull"]);
}

#[test]
fn a_file_that_is_cut_off_is_refused() {
    let whole = safetensors(&[f32s("transformer.a.weight", [2, 3], 0.0)]);
    assert!(WeightFiles::from_bytes(model(whole.clone())).is_ok());
    for len in 0..whole.len() {
        let message = refusal(model(&whole[..len]));
        assert_says(&message, &[MODEL_FILE, "cut off"]);
    }
    let mut longer = whole;
    longer.push(0);
    assert_says(&refusal(model(longer)), &["24 bytes", "25"]);
}

#[test]
fn a_header_that_is_none_is_refused() {
    for header in [
        "",
        "x",
        "[]",
        "{\"a\": 1}",
        "{\"a\":",
        "{\"a\": {\"dtype\": \"F32\"}}",
    ] {
        assert_says(&refusal(model(raw(header, b""))), &[MODEL_FILE]);
    }
    let mut huge = u64::MAX.to_le_bytes().to_vec();
    huge.extend(b"{}");
    assert_says(
        &refusal(model(huge)),
        &["header needs 18446744073709551615 bytes"],
    );
    let deep = "[".repeat(100_000);
    assert_says(&refusal(model(raw(&deep, b""))), &[MODEL_FILE]);
}

#[test]
fn what_a_header_says_twice_is_refused() {
    let data = [0; 4];
    let tensor = r#"{"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}"#;
    let once = format!(r#"{{"__metadata__": {{"format": "pt"}}, "a": {tensor}}}"#);
    assert!(WeightFiles::from_bytes(model(raw(&once, &data))).is_ok());
    for field in [
        r#""dtype": "F32""#,
        r#""shape": [1]"#,
        r#""data_offsets": [0, 4]"#,
    ] {
        let twice = format!(
            r#"{{"a": {}}}"#,
            tensor.replace(field, &format!("{field}, {field}"))
        );
        assert_says(
            &refusal(model(raw(&twice, &data))),
            &[MODEL_FILE, "header", "`a`", "duplicate field"],
        );
    }
    let tensors = format!(r#"{{"a": {tensor}, "a": {tensor}}}"#);
    assert_says(
        &refusal(model(raw(&tensors, &data))),
        &["`a` is there twice"],
    );
    let metadata = format!(r#"{{"__metadata__": {{}}, "a": {tensor}, "__metadata__": {{}}}}"#);
    assert_says(
        &refusal(model(raw(&metadata, &data))),
        &["`__metadata__` is there twice"],
    );
}

#[test]
fn a_header_of_other_bytes_than_text_is_refused() {
    let tensor = r#"{"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}"#;
    for (metadata, says) in [(r#"{"x": 1}"#, "`__metadata__`"), ("[]", "`__metadata__`")] {
        let header = format!(r#"{{"__metadata__": {metadata}, "a": {tensor}}}"#);
        assert_says(&refusal(model(raw(&header, &[0; 4]))), &[MODEL_FILE, says]);
    }
    // Inside a text that is skipped over, where a JSON reader need not look.
    let header = format!(
        r#"{{"a": {}}}"#,
        tensor.replace("\"F32\"", "\"F32\", \"note\": \"?\"")
    );
    assert!(WeightFiles::from_bytes(model(raw(&header, &[0; 4]))).is_ok());
    let mut bytes = raw(&header, &[0; 4]);
    let at = bytes.iter().position(|&byte| byte == b'?').unwrap();
    bytes[at] = 0xff;
    assert_says(&refusal(model(bytes)), &[MODEL_FILE, "utf-8"]);
}

#[test]
fn a_type_that_nobody_knows_is_named() {
    let header = r#"{"a.weight": {"dtype": "F3", "shape": [1], "data_offsets": [0, 1]}}"#;
    assert_says(&refusal(model(raw(header, b"x"))), &["`a.weight`", "`F3`"]);
}

#[test]
fn offsets_that_lie_are_refused_by_name() {
    let two = |a: &str, b: &str| {
        format!(
            r#"{{"a": {{"dtype": "F32", "shape": [2], "data_offsets": {a}}},
                "b": {{"dtype": "F32", "shape": [2], "data_offsets": {b}}}}}"#
        )
    };
    let data = [0; 16];
    assert!(WeightFiles::from_bytes(model(raw(&two("[0, 8]", "[8, 16]"), &data))).is_ok());
    for (a, b, guilty) in [
        ("[0, 8]", "[4, 12]", "`b`"),   // overlap
        ("[0, 8]", "[0, 8]", "`b`"),    // the same bytes
        ("[0, 8]", "[12, 20]", "`b`"),  // a hole
        ("[4, 12]", "[12, 20]", "`a`"), // a hole before the first
        ("[8, 0]", "[8, 16]", "`a`"),   // backwards
        ("[0, 4]", "[4, 16]", "`a`"),   // other sizes than the shapes have
        ("[0, 8]", "[8, 24]", "`b`"),   // past the end
        (
            "[0, 18446744073709551608]",
            "[18446744073709551608, 18446744073709551615]",
            "`a`",
        ),
    ] {
        assert_says(&refusal(model(raw(&two(a, b), &data))), &[guilty]);
    }
    let negative = two("[-8, 0]", "[0, 8]");
    assert_says(&refusal(model(raw(&negative, &data))), &["`a`"]);
    assert_says(&refusal(model(raw("{}", &data))), &["16"]);
}

#[test]
fn a_shape_that_overflows_is_refused_by_name() {
    for shape in ["[4294967296, 4294967296]", "[18446744073709551615, 2]"] {
        let header =
            format!(r#"{{"a": {{"dtype": "F32", "shape": {shape}, "data_offsets": [0, 0]}}}}"#);
        assert_says(
            &refusal(model(raw(&header, b""))),
            &["`a`", "larger than any memory"],
        );
    }
}

#[test]
fn shards_that_are_missing_or_lie_elsewhere_are_refused() {
    let mut files = sharded();
    files.remove(1);
    assert_says(
        &refusal(files),
        &[INDEX_FILE, "`2.safetensors`", "download"],
    );
    for (shard, why) in [
        ("../2.safetensors", "lies beside"),
        ("/etc/2.safetensors", "lies beside"),
        ("a/2.safetensors", "lies beside"),
        ("a\\\\2.safetensors", "lies beside"),
        ("C:2.safetensors", "lies beside"),
        ("..", "lies beside"),
        ("pytorch_model-00001-of-00002.bin", "save_pretrained"),
        ("", "no safetensors file"),
    ] {
        let index = format!(r#"{{"weight_map": {{"transformer.b.weight": "{shard}"}}}}"#);
        let message = refusal(vec![named(INDEX_FILE, index)]);
        assert_says(&message, &[INDEX_FILE, "`transformer.b.weight`", why]);
    }
}

#[test]
fn an_index_and_shards_that_do_not_agree_are_refused() {
    // The index has a tensor that its shard lacks.
    let mut files = sharded();
    files[1].1 = safetensors(&[f32s("transformer.c.weight", [1, 4], 0.0)]);
    let words = [INDEX_FILE, "`2.safetensors`", "`transformer.b.weight`"];
    assert_says(&refusal(files), &words);
    // It says the other shard.
    let mut files = sharded();
    let text = String::from_utf8(files[2].1.clone()).unwrap();
    let crossed = text.replace("1.safe", "0.safe").replace("2.safe", "1.safe");
    files[2].1 = crossed.replace("0.safe", "2.safe").into();
    assert_says(&refusal(files), &[INDEX_FILE, "does not hold"]);
    // A tensor is in two shards.
    let mut files = sharded();
    files[1].1 = safetensors(&[
        f32s("transformer.a.weight", [2, 3], 0.0),
        f32s("transformer.b.weight", [1, 4], 0.0),
    ]);
    assert_says(
        &refusal(files),
        &["2.safetensors", "`transformer.a.weight`", "`1.safetensors`"],
    );
    // A shard has one that the index lacks.
    let mut files = sharded();
    files[1].1 = safetensors(&[
        f32s("transformer.b.weight", [1, 4], 0.0),
        f32s("transformer.c.weight", [1, 4], 0.0),
    ]);
    assert_says(
        &refusal(files),
        &[
            "2.safetensors",
            "`transformer.c.weight`",
            "not in the index",
        ],
    );
    for index in [
        "",
        "{}",
        "[]",
        r#"{"weight_map": {}}"#,
        r#"{"weight_map": {"a": 1}}"#,
    ] {
        assert_says(&refusal(vec![named(INDEX_FILE, index)]), &[INDEX_FILE]);
    }
}

#[test]
fn a_value_head_in_two_files_and_two_files_of_one_name_are_refused() {
    let head = || safetensors(&[f32s("value_head.weight", [1, 4], 0.0)]);
    let files = vec![
        named(MODEL_FILE, head()),
        named("value_head.safetensors", head()),
    ];
    assert_says(
        &refusal(files),
        &["value_head.safetensors", "`value_head.weight`"],
    );
    let files = vec![named(MODEL_FILE, head()), named(MODEL_FILE, head())];
    let message = WeightFiles::from_bytes(files).unwrap_err().to_string();
    assert_says(&message, &[MODEL_FILE, "two files"]);
}

/// What assigning these tensors to `specs()` says.
fn misfit(tensors: &[Stored<'_>]) -> String {
    let files = WeightFiles::from_bytes(model(safetensors(tensors))).unwrap();
    files.assign(&specs()).unwrap_err().to_string()
}

#[test]
fn weights_of_another_model_are_refused_by_name() {
    let a = || f32s("transformer.a.weight", [2, 3], 0.0);
    let b = || f32s("transformer.b.weight", [1, 4], 0.0);
    assert_says(&misfit(&[a()]), &["`transformer.b.weight`", "config.json"]);
    assert_says(&misfit(&[]), &["`transformer.a.weight` and 1 others"]);
    let c = f32s("transformer.c.weight", [1, 4], 0.0);
    assert_says(
        &misfit(&[a(), b(), c]),
        &[MODEL_FILE, "`transformer.c.weight`"],
    );
    assert_says(
        &misfit(&[a(), b(), f32s("b.weight", [1, 4], 0.0)]),
        &["`b.weight`", "the same"],
    );
    let wide = f32s("transformer.b.weight", [1, 5], 0.0);
    assert_says(
        &misfit(&[a(), wide]),
        &["`transformer.b.weight`", "[1, 5]", "[1, 4]"],
    );
    let none = f32s("transformer.b.weight", [0, 4], 0.0);
    assert_says(&misfit(&[a(), none]), &["`transformer.b.weight`", "[0, 4]"]);
}

#[test]
fn types_that_are_not_read_are_refused_by_name() {
    for (dtype, size) in [
        (Dtype::F64, 8),
        (Dtype::I32, 4),
        (Dtype::F8_E4M3, 1),
        (Dtype::U8, 1),
    ] {
        let b = ("transformer.b.weight", dtype, vec![1, 4], vec![0; 4 * size]);
        let message = misfit(&[f32s("transformer.a.weight", [2, 3], 0.0), b]);
        assert_says(
            &message,
            &["`transformer.b.weight`", &dtype.to_string(), "BF16"],
        );
    }
}
