//! The fake kubelet, shown on scripted drivers to do what a whole one was seen to do.

mod attaching;
mod calling;
mod mounting;
mod operating;
mod probing;
mod unmounting;

use std::path::Path;
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread;
use std::time::Duration;

use harness::call::tool;
use libtest_mimic::Trial;

pub fn trials() -> Vec<Trial> {
    let modules = [
        attaching::trials(),
        calling::trials(),
        mounting::trials(),
        operating::trials(),
        probing::trials(),
        unmounting::trials(),
    ];
    modules.into_iter().flatten().collect()
}

/// Starts `work`, shows that it is still at it when `begun` exists, opens the gate by writing to the FIFO
/// `gate`, and gives what came of the work.
fn held_by<T: Send>(begun: &str, gate: &str, work: impl FnOnce() -> T + Send) -> T {
    thread::scope(|scope| {
        let (send, receive) = mpsc::channel();
        scope.spawn(move || drop(send.send(work())));
        wait_for(begun);
        // It cannot end before the gate opens, however long this waits.
        let early = receive.recv_timeout(Duration::from_millis(100)).err();
        // Opened first: a test that fails must not leave a writer without readers.
        open(gate);
        assert_eq!(early, Some(RecvTimeoutError::Timeout), "the work did not wait");
        receive.recv_timeout(Duration::from_mins(1)).expect("the work ends when the gate is open")
    })
}

fn wait_for(path: &str) {
    for _ in 0..6000 {
        if Path::new(path).exists() {
            return;
        }
        thread::sleep(Duration::from_millis(10));
    }
    panic!("`{path}` does not appear");
}

fn open(gate: &str) {
    tool(&["timeout", "60", "sh", "-c", "echo > \"$0\"", gate]);
}
