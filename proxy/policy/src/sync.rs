//! Atomics and locks of what workers share: those of `std` and `parking_lot`,
//! or loom's, which tries every order in which threads may take their steps.
//! Whatever is shared takes them from here, so that what loom has seen is what
//! runs.

#[cfg(not(feature = "loom"))]
pub(crate) use {parking_lot::Mutex, std::sync::atomic};

#[cfg(feature = "loom")]
pub(crate) use {lock::Mutex, loom::sync::atomic};

#[cfg(feature = "loom")]
mod lock {
    /// loom's lock, asked as `parking_lot`'s is.
    #[derive(Debug, Default)]
    pub(crate) struct Mutex<T>(loom::sync::Mutex<T>);

    impl<T> Mutex<T> {
        pub(crate) fn new(inner: T) -> Self {
            Self(loom::sync::Mutex::new(inner))
        }

        pub(crate) fn try_lock(&self) -> Option<loom::sync::MutexGuard<'_, T>> {
            self.0.try_lock().ok()
        }

        pub(crate) fn lock(&self) -> loom::sync::MutexGuard<'_, T> {
            self.0
                .lock()
                .expect("loom ends the model where a thread panics")
        }
    }
}
