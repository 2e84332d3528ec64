// Rows whose width is a multiple of four, read and written four columns at a time.
alias Columns = vec4<f32>;
const COLUMNS: u32 = 4u;

fn total(v: Columns) -> f32 {
    return (v.x + v.y) + (v.z + v.w);
}
