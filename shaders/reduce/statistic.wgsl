// A statistic of many values, in two stages of fixed order. What a part is, how it is made of
// values, how two combine and what is stored, is a file of lib/statistic/.
//
//   statistic_chunks: reads values (rows, C); writes partials, one a thread
//   statistic_total: reads partials; writes result
//
// Bindings: 0 params, 1 counts (where the rows are live), 2 values (read, as bits), 3 partials
// (written, then read), 4 result (written, as bits).
//
// Dispatch: statistic_chunks in workgroups of 64, each thread 256 values of the workgroup's 16384,
// without barriers; statistic_total in one workgroup of 64. Values past the live rows are not
// read.
struct Params {
    rows: u32,
    rows_count: u32,
    columns: u32,
    pad: u32,
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(2) var<storage, read> values: array<ColumnBits>;
@group(0) @binding(3) var<storage, read_write> partials: array<Part>;
@group(0) @binding(4) var<storage, read_write> result: array<u32>;

const THREADS: u32 = 64u;
const LOADS: u32 = 256u / COLUMNS;
const CHUNK: u32 = THREADS * LOADS;

var<workgroup> thread_parts: array<Part, 64>;
var<workgroup> eighths: array<Part, 8>;

fn live_loads() -> u32 {
    return live(params.rows, params.rows_count) * (params.columns / COLUMNS);
}

@compute @workgroup_size(64)
fn statistic_chunks(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) index: u32,
) {
    let end = live_loads();
    let chunk = linear_workgroup(group, groups);
    if (chunk * CHUNK >= end) {
        return;
    }
    partials[chunk * THREADS + index] = part_of(chunk * CHUNK + index, end);
}

@compute @workgroup_size(64)
fn statistic_total(@builtin(local_invocation_index) index: u32) {
    let chunks = (live_loads() + CHUNK - 1u) / CHUNK;
    var part = empty_part();
    for (var chunk = 0u; chunk < chunks; chunk++) {
        part = combine(part, partials[chunk * THREADS + index]);
    }
    thread_parts[index] = part;
    // Every thread's part is there.
    workgroupBarrier();
    if (index < 8u) {
        var eighth = empty_part();
        for (var i = 0u; i < 8u; i++) {
            eighth = combine(eighth, thread_parts[index * 8u + i]);
        }
        eighths[index] = eighth;
    }
    // The eight parts are there.
    workgroupBarrier();
    if (index == 0u) {
        var all = empty_part();
        for (var i = 0u; i < 8u; i++) {
            all = combine(all, eighths[i]);
        }
        store(all);
    }
}
