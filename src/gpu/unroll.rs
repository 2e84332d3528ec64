//! Loops written out: where arrays are indexed by a loop that a driver does not unroll, it keeps
//! them in memory and not in registers, which costs software drivers several times over.

use super::Const;

/// The line before a loop that is to be written out. The text is valid WGSL without doing so.
const MARK: &str = "// unroll";

/// Writes out each loop of the form
///
/// ```wgsl
/// // unroll
/// for (var d = 0u; d < BOUND; d += 1u) {
///     ...
/// }
/// ```
///
/// whose bound is a number or among `consts`, and those inside it; others stay as they are. The body
/// ends at the first line that is a closing brace as far in as the `for`.
pub(super) fn unrolled(text: &str, consts: &[(&str, Const)]) -> String {
    let mut out = String::with_capacity(text.len());
    let mut lines = text.lines();
    while let Some(line) = lines.next() {
        let found = (line.trim() == MARK).then(|| Loop::after(lines.clone(), consts));
        match found.flatten() {
            Some(found) => {
                out += &unrolled(&found.written_out(), consts);
                lines.nth(found.body.len() + 1);
            }
            None => {
                out += line;
                out.push('\n');
            }
        }
    }
    out
}

struct Loop<'a> {
    indent: &'a str,
    counter: &'a str,
    times: u32,
    body: Vec<&'a str>,
}

impl<'a> Loop<'a> {
    /// The loop that the lines begin with.
    fn after(mut lines: std::str::Lines<'a>, consts: &[(&str, Const)]) -> Option<Self> {
        let head = lines.next()?;
        let indent = &head[..head.len() - head.trim_start().len()];
        let (counter, rest) = head
            .trim_start()
            .strip_prefix("for (var ")?
            .split_once(" = 0u; ")?;
        let (bound, step) = rest
            .strip_prefix(counter)?
            .strip_prefix(" < ")?
            .split_once("; ")?;
        if step != format!("{counter} += 1u) {{") {
            return None;
        }
        let number = bound.strip_suffix('u').and_then(|bound| bound.parse().ok());
        let of_const = || match consts.iter().find(|(name, _)| *name == bound) {
            Some(&(_, Const::U32(times))) => Some(times),
            _ => None,
        };
        let ends = |line: &&str| line.strip_prefix(indent) != Some("}");
        Some(Self {
            indent,
            counter,
            times: number.or_else(of_const)?,
            body: lines.take_while(ends).collect(),
        })
    }

    fn written_out(&self) -> String {
        let mut out = String::new();
        for time in 0..self.times {
            let value = format!("{time}u");
            out += &format!("{}{{\n", self.indent);
            for line in &self.body {
                replace_word(line, self.counter, &value, &mut out);
                out.push('\n');
            }
            out += &format!("{}}}\n", self.indent);
        }
        out
    }
}

/// Appends `line` with `value` in place of each identifier `word`.
fn replace_word(line: &str, word: &str, value: &str, out: &mut String) {
    let part = |c: char| c.is_alphanumeric() || c == '_';
    let mut rest = line;
    while !rest.is_empty() {
        let end = rest.find(|c| !part(c)).unwrap_or(rest.len());
        let (token, after) = rest.split_at(if end == 0 { 1 } else { end });
        *out += if token == word { value } else { token };
        rest = after;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "\
fn f() {
    // unroll
    for (var d = 0u; d < WIDTH; d += 1u) {
        let end = a[d];
        if (d > 0u) {
            b[d] = load(start + d);
        }
    }
    done();
}
";

    #[test]
    fn a_loop_with_a_known_bound_is_written_out() {
        let out = unrolled(
            TEXT,
            &[("OTHER", Const::Bool(true)), ("WIDTH", Const::U32(2))],
        );
        let once = |d: u32| {
            format!(
                "    {{\n        let end = a[{d}u];\n        if ({d}u > 0u) {{\n            \
                 b[{d}u] = load(start + {d}u);\n        }}\n    }}\n"
            )
        };
        assert_eq!(
            out,
            format!("fn f() {{\n{}{}    done();\n}}\n", once(0), once(1))
        );
    }

    #[test]
    fn a_loop_inside_another_is_written_out_too() {
        let text = "\
// unroll
for (var a = 0u; a < 2u; a += 1u) {
    // unroll
    for (var b = 0u; b < TIMES; b += 1u) {
        f(a, b);
    }
}
";
        let out = unrolled(text, &[("TIMES", Const::U32(1))]);
        let once = |a: u32| format!("{{\n    {{\n        f({a}u, 0u);\n    }}\n}}\n");
        assert_eq!(out, once(0) + &once(1));
    }

    #[test]
    fn other_loops_stay_as_they_are() {
        assert_eq!(unrolled(TEXT, &[]), TEXT);
        assert_eq!(unrolled(TEXT, &[("WIDTH", Const::Bool(true))]), TEXT);
        for (from, to) in [
            ("// unroll", "// unrolled"),
            ("d += 1u", "d += 2u"),
            ("d = 0u", "d = 1u"),
        ] {
            let text = TEXT.replace(from, to);
            assert_eq!(unrolled(&text, &[("WIDTH", Const::U32(2))]), text);
        }
        assert_eq!(
            unrolled("// unroll", &[("WIDTH", Const::U32(2))]),
            "// unroll\n"
        );
    }
}
