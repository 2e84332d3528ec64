// result[0] = mean, result[1] = population variance sum((x - mean)^2) / n; zeros where n = 0.
//
// A part holds (n, mean, sum((x - mean)^2)) of some values: of few by two passes with the
// correction for the rounded mean (Chan, Golub and LeVeque 1983, equation 1.7), of more by
// combining two parts (equations 2.1).
alias Part = vec4<f32>;

fn empty_part() -> Part {
    return vec4<f32>();
}

fn part_of(first: u32, end: u32) -> Part {
    var sum = Columns();
    var loads = 0u;
    for (var i = 0u; i < LOADS; i++) {
        let at = first + i * THREADS;
        if (at < end) {
            sum += bitcast<Columns>(values[at]);
            loads += 1u;
        }
    }
    let n = f32(loads * COLUMNS);
    let mean = total(sum) / max(n, 1.0);
    var distance = Columns();
    var square = Columns();
    for (var i = 0u; i < loads; i++) {
        let d = bitcast<Columns>(values[first + i * THREADS]) - mean;
        distance += d;
        square += d * d;
    }
    let shift = total(distance) / max(n, 1.0);
    return vec4<f32>(n, mean + shift, max(total(square) - n * shift * shift, 0.0), 0.0);
}

fn combine(a: Part, b: Part) -> Part {
    let n = a.x + b.x;
    let share = b.x / max(n, 1.0);
    let d = b.y - a.y;
    return vec4<f32>(n, a.y + d * share, a.z + b.z + d * d * (a.x * share), 0.0);
}

fn store(part: Part) {
    result[0] = bitcast<u32>(part.y);
    result[1] = bitcast<u32>(part.z / max(part.x, 1.0));
}
