//! A Node addon by hand: N-API is a C interface, so no C++ and no binding crate is needed.
//!
//! `require` gives `{ retries() }`, which asks the update check of `selfupdate`, and, where the Go part is linked in,
//! `greetings()`, which asks that.

use std::ffi::CStr;
use std::os::raw::{c_char, c_void};
use std::ptr::null_mut;

type Env = *mut c_void;
type Value = *mut c_void;
type Status = i32;
type Callback = extern "C" fn(Env, *mut c_void) -> Value;

extern "C" {
    fn napi_create_function(
        env: Env, name: *const c_char, length: usize, call: Callback, data: *mut c_void, result: *mut Value,
    ) -> Status;
    fn napi_create_uint32(env: Env, value: u32, result: *mut Value) -> Status;
    fn napi_set_named_property(env: Env, object: Value, name: *const c_char, value: Value) -> Status;
}

#[cfg(butler)]
extern "C" {
    fn butler_greetings() -> u32;
}

extern "C" fn retries(env: Env, _: *mut c_void) -> Value {
    number(env, selfupdate::retries())
}

#[cfg(butler)]
extern "C" fn greetings(env: Env, _: *mut c_void) -> Value {
    number(env, unsafe { butler_greetings() })
}

fn number(env: Env, value: u32) -> Value {
    let mut made = null_mut();
    unsafe { napi_create_uint32(env, value, &mut made) };
    made
}

fn export(env: Env, exports: Value, name: &[u8], call: Callback) {
    let name = CStr::from_bytes_with_nul(name).expect("a zero at the end");
    let mut made = null_mut();
    unsafe {
        napi_create_function(env, name.as_ptr(), name.to_bytes().len(), call, null_mut(), &mut made);
        napi_set_named_property(env, exports, name.as_ptr(), made);
    }
}

extern "C" fn init(env: Env, exports: Value) -> Value {
    export(env, exports, b"retries\0", retries);
    #[cfg(butler)]
    export(env, exports, b"greetings\0", greetings);
    exports
}

/// What node calls after it has opened the addon, if it finds it.
#[cfg(not(feature = "constructor"))]
#[no_mangle]
pub extern "C" fn napi_register_module_v1(env: Env, exports: Value) -> Value {
    init(env, exports)
}

/// The older way: a constructor announces the addon while node opens it.
#[cfg(feature = "constructor")]
mod constructor {
    use super::{c_char, c_void, init, null_mut, Env, Value};

    #[repr(C)]
    struct Module {
        version: i32,
        flags: u32,
        file: *const c_char,
        register: extern "C" fn(Env, Value) -> Value,
        name: *const c_char,
        private: *mut c_void,
        reserved: [*mut c_void; 4],
    }

    extern "C" {
        fn napi_module_register(module: *mut Module);
    }

    static mut MODULE: Module = Module {
        version: 1,
        flags: 0,
        file: b"lib.rs\0".as_ptr().cast(),
        register: init,
        name: b"valet\0".as_ptr().cast(),
        private: null_mut(),
        reserved: [null_mut(); 4],
    };

    extern "C" fn announce() {
        unsafe { napi_module_register(std::ptr::addr_of_mut!(MODULE)) }
    }

    #[used]
    #[link_section = ".init_array"]
    static ANNOUNCE: extern "C" fn() = announce;
}
