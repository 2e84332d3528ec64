// result[0] = smallest, result[1] = largest of the values that are numbers; plus and minus infinity
// where there is none.
//
// A part holds both as keys that are ordered as integers, since WGSL may assume that floats are
// finite: positive floats with the sign bit set, negative ones with all bits inverted.
alias Part = vec2<u32>;

const INFINITY_BITS: u32 = 0x7f800000u;
const LEAST_KEY: u32 = 0x007fffffu;
const GREATEST_KEY: u32 = 0xff800000u;

fn empty_part() -> Part {
    return vec2<u32>(GREATEST_KEY, LEAST_KEY);
}

fn part_of(first: u32, end: u32) -> Part {
    var least = ColumnBits(GREATEST_KEY);
    var greatest = ColumnBits(LEAST_KEY);
    for (var i = 0u; i < LOADS; i++) {
        let at = first + i * THREADS;
        if (at < end) {
            let bits = values[at];
            let negative = bits >= ColumnBits(0x80000000u);
            let key = select(bits | ColumnBits(0x80000000u), ~bits, negative);
            let number = (bits & ColumnBits(0x7fffffffu)) <= ColumnBits(INFINITY_BITS);
            least = min(least, select(ColumnBits(GREATEST_KEY), key, number));
            greatest = max(greatest, select(ColumnBits(LEAST_KEY), key, number));
        }
    }
    return vec2<u32>(smallest_bits(least), largest_bits(greatest));
}

fn combine(a: Part, b: Part) -> Part {
    return vec2<u32>(min(a.x, b.x), max(a.y, b.y));
}

fn bits_of_key(key: u32) -> u32 {
    return select(~key, key ^ 0x80000000u, key >= 0x80000000u);
}

fn store(part: Part) {
    result[0] = bits_of_key(part.x);
    result[1] = bits_of_key(part.y);
}
