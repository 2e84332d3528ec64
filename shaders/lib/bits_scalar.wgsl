// One column as a bit pattern.
alias ColumnBits = u32;

fn smallest_bits(v: ColumnBits) -> u32 {
    return v;
}

fn largest_bits(v: ColumnBits) -> u32 {
    return v;
}

fn total_bits(v: ColumnBits) -> u32 {
    return v;
}
