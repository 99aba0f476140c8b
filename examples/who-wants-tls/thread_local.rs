//! The same in Rust: `thread_local!`, which any toolchain has.
use std::cell::Cell;

thread_local! {
    static COUNTER: Cell<i64> = const { Cell::new(0) };
}

#[no_mangle]
pub extern "C" fn counter_inc() {
    COUNTER.with(|counter| counter.set(counter.get() + 1));
}

#[no_mangle]
pub extern "C" fn counter_get() -> i64 {
    COUNTER.with(Cell::get)
}

#[no_mangle]
pub extern "C" fn counter_spin(times: i64) {
    for _ in 0..times {
        std::hint::black_box(counter_inc as extern "C" fn())();
    }
}
