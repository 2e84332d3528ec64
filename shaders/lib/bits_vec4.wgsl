// Four columns as bit patterns.
alias ColumnBits = vec4<u32>;

fn smallest_bits(v: ColumnBits) -> u32 {
    return min(min(v.x, v.y), min(v.z, v.w));
}

fn largest_bits(v: ColumnBits) -> u32 {
    return max(max(v.x, v.y), max(v.z, v.w));
}

fn total_bits(v: ColumnBits) -> u32 {
    return (v.x + v.y) + (v.z + v.w);
}
