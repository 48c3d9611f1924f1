//! Bounds what a check may allocate. Without a sanitizer libFuzzer sees only the process's resident memory, once a
//! second; a length that is believed before its bytes are there must be found at once.

use std::{alloc::System, panic, sync::Once};

use cap::Cap;

#[global_allocator]
static ALLOCATOR: Cap<System> = Cap::new(System, usize::MAX);

static HOOK: Once = Once::new();

/// Runs `check`; the process ends if it holds more than `bytes` at once beyond what is held already.
pub fn bounded<T>(bytes: usize, check: impl FnOnce() -> T) -> T {
    HOOK.call_once(|| {
        // Whatever goes wrong must be able to say so.
        let report = panic::take_hook();
        panic::set_hook(Box::new(move |panic| {
            let _ = ALLOCATOR.set_limit(usize::MAX);
            report(panic);
        }));
    });
    ALLOCATOR.set_limit(ALLOCATOR.allocated().saturating_add(bytes)).expect("a limit above what is allocated");
    let result = check();
    ALLOCATOR.set_limit(usize::MAX).expect("a limit above what is allocated");
    result
}
