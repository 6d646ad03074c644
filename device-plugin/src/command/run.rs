//! `run`: the daemon.

use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use node::{Context, Error, Kind, Result};
use tokio::runtime::{Builder, Runtime};
use tokio::signal::unix::{SignalKind, signal};

use crate::config::{self, Config};
use crate::kernel::memory;
use crate::{daemon, log};

/// Threads for what may block, at most: four for looks, four for slow ones and checks, eight for allocations, eight for
/// checks before a start. Each kind has turns of its own, so that none takes another's thread.
const WORKERS: usize = 24;

/// What runs there walks folders and parses small files.
const STACK: usize = 512 << 10;

/// Runs until SIGTERM.
pub(super) fn run(path: &Path, shape: log::Shape, debug: bool) -> Result<ExitCode> {
    // Its folder is watched: it has to have one.
    let path = &std::path::absolute(path).doing(Kind::Io, || format!("find `{}`", path.display()))?;
    let config = Config::load(path)?;
    log::start(shape, debug);
    memory::one_heap();
    let runtime = runtime()?;
    let outcome = runtime.block_on(async {
        let lock = tokio::select! {
            lock = daemon::lock(&config.kubelet) => lock?,
            () = stopped() => return Ok(ExitCode::SUCCESS),
        };
        // The file may be another one after a wait.
        let text = config::read(path)?;
        let again = Config::parse(&text)?;
        if again.kubelet != config.kubelet {
            let why = "`kubelet` was changed while this daemon waited for its turn";
            return Err(Error::caused(Kind::Config, "start", why).hint("start it again"));
        }
        let config = again;
        daemon::run(path, text, config).await?;
        drop(lock);
        Ok(ExitCode::SUCCESS)
    });
    // A thread that waits for the lock, or for a command, ends with the process.
    runtime.shutdown_timeout(Duration::from_millis(100));
    outcome
}

fn runtime() -> Result<Runtime> {
    let mut builder = Builder::new_current_thread();
    builder.enable_all().max_blocking_threads(WORKERS).thread_stack_size(STACK);
    builder.build().doing(Kind::Kernel, || "start the runtime".to_owned())
}

/// SIGTERM or SIGINT.
async fn stopped() {
    let (Ok(mut term), Ok(mut int)) = (signal(SignalKind::terminate()), signal(SignalKind::interrupt()))
    else {
        return std::future::pending().await;
    };
    tokio::select! {
        _ = term.recv() => {}
        _ = int.recv() => {}
    }
}
