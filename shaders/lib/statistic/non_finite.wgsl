// result[0] = how many values are infinite or not a number, as a float. Those have all bits of the
// exponent set; WGSL may assume that a comparison of floats never meets them.
alias Part = u32;

const EXPONENT: u32 = 0x7f800000u;

fn empty_part() -> Part {
    return 0u;
}

fn part_of(first: u32, end: u32) -> Part {
    var count = ColumnBits(0u);
    for (var i = 0u; i < LOADS; i++) {
        let at = first + i * THREADS;
        if (at < end) {
            let special = (values[at] & ColumnBits(EXPONENT)) == ColumnBits(EXPONENT);
            count += select(ColumnBits(0u), ColumnBits(1u), special);
        }
    }
    return total_bits(count);
}

fn combine(a: Part, b: Part) -> Part {
    return a + b;
}

fn store(part: Part) {
    result[0] = bitcast<u32>(f32(part));
}
