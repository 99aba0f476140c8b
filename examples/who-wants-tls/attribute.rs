//! Rust's unstable attribute, which makes a plain variable of it, as C's `__thread` does.
#![feature(thread_local)]

#[thread_local]
static mut COUNTER: i64 = 0;

#[no_mangle]
pub extern "C" fn counter_inc() {
    unsafe { COUNTER += 1 }
}

#[no_mangle]
pub extern "C" fn counter_get() -> i64 {
    unsafe { COUNTER }
}

#[no_mangle]
pub extern "C" fn counter_spin(times: i64) {
    for _ in 0..times {
        std::hint::black_box(counter_inc as extern "C" fn())();
    }
}
