// result[0] = sum of all values
alias Part = f32;

fn empty_part() -> Part {
    return 0.0;
}

fn part_of(first: u32, end: u32) -> Part {
    var sum = Columns();
    for (var i = 0u; i < LOADS; i++) {
        let at = first + i * THREADS;
        if (at < end) {
            sum += bitcast<Columns>(values[at]);
        }
    }
    return total(sum);
}

fn combine(a: Part, b: Part) -> Part {
    return a + b;
}

fn store(part: Part) {
    result[0] = bitcast<u32>(part);
}
