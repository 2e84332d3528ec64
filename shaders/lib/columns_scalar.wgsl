// Rows of any width, read and written a column at a time.
alias Columns = f32;
const COLUMNS: u32 = 1u;

fn total(v: Columns) -> f32 {
    return v;
}
