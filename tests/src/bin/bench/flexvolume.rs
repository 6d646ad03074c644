//! The FlexVolume driver beside a shell driver, a script, a do-nothing program and the bare system calls.

use std::sync::mpsc;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use harness::call::LIMIT;
use harness::kernel::trace;
use harness::measure::{Measure, Row, Sample, Series, once};
use harness::volume_node::VolumeNode;

use crate::volumes::{Call, Volume, images, node, on_node};
use crate::{Group, WARM_UP, all_at_once, settle};

/// What is measured.
pub const GROUPS: [Group; 6] = [
    ("init", |rounds| on_node(move |_| vec![init(rounds)])),
    ("tmpfs", |rounds| on_node(move |_| tmpfs(rounds))),
    ("image", |rounds| on_node(move |node| image(node, rounds))),
    ("at-once", |rounds| on_node(move |_| vec![together(64, (rounds / 10).max(5))])),
    ("mounts", |rounds| vec![many_mounts(1000, rounds)]),
    ("memory", |_| on_node(memory)),
];

const OURS: &str = "nodeplug~tmpfs/tmpfs";
const TMPFS: [(&str, &str); 2] = [("mode", "0770"), ("size", "16Mi")];
/// The kernel takes a loop device apart a little after its last user has gone.
const LOOP_REST: Duration = Duration::from_millis(20);

/// What a side does in a round, and what each of its calls costs.
type Side<'a, const CALLS: usize> = &'a dyn Fn() -> [Sample; CALLS];

/// Runs all `sides` in each round, beginning with another one each time.
fn in_turns<const SIDES: usize, const CALLS: usize>(
    rounds: usize,
    sides: [Side<'_, CALLS>; SIDES],
    rest: Duration,
) -> [[Series; CALLS]; SIDES] {
    let mut series = sides.map(|_| [(); CALLS].map(|()| Series::default()));
    for round in 0..rounds + WARM_UP {
        for turn in 0..SIDES {
            let n = (turn + round) % SIDES;
            let samples = sides[n]();
            settle();
            thread::sleep(rest);
            if round >= WARM_UP {
                series[n].iter_mut().zip(samples).for_each(|(series, sample)| series.push(sample));
            }
        }
    }
    series
}

/// Says a comparison that has no bar.
fn note(row: &Row) {
    eprintln!("{} = {:.3} ({})", row.what, row.value, row.detail);
}

fn init(rounds: usize) -> Row {
    let init = Call::new(OURS, &["init"]);
    let nothing = Call::new("bench~nothing/nothing", &["init"]);
    let sides: [Side<1>; 2] = [&|| [init.succeed()], &|| [once(&nothing).0]];
    let [[ours], [floor]] = in_turns(rounds, sides, Duration::ZERO);
    let what = "init / a static do-nothing program";
    note(&Row::ratio(what, Measure::Wall, 1.5, &ours, &floor));
    Row::ratio(what, Measure::Cpu, 1.5, &ours, &floor)
}

/// Mounts and unmounts of the driver and of the shell driver, and mounts of the bare system calls.
fn tmpfs(rounds: usize) -> Vec<Row> {
    let ours = Volume::new(OURS, 1, &TMPFS);
    let shell = Volume::new("bench~tmpfs/tmpfs", 2, &[("mode", "0770"), ("size", "16m")]);
    let floor = Volume::new("bench~floor/floor", 3, &TMPFS);
    ours.round();
    same_calls(&ours, &floor);
    let bare = || [floor.mount().succeed(), floor.cleared()];
    let sides: [Side<2>; 3] = [&|| ours.round(), &|| shell.round(), &bare];
    let [[mounts, unmounts], [shell_mounts, shell_unmounts], [floor, _]] =
        in_turns(rounds, sides, Duration::ZERO);
    let what = "tmpfs mount / a bare program with the same system calls";
    note(&Row::ratio(what, Measure::Cpu, 1.5, &mounts, &floor));
    let (both, shell) = (mounts.and(&unmounts), shell_mounts.and(&shell_unmounts));
    vec![
        Row::ratio("tmpfs mount + unmount / shell driver", Measure::Wall, 0.15, &both, &shell),
        Row::ratio(what, Measure::Wall, 1.5, &mounts, &floor),
    ]
}

/// Says by which system calls (their numbers) the driver's mount differs from the floor's.
fn same_calls(ours: &Volume, floor: &Volume) {
    let calls = [ours, floor].map(|volume| trace::system_calls(&volume.mount()).0);
    ours.unmounted();
    floor.cleared();
    let [ours, floor] = calls;
    let (more, less) = (beyond(&ours, &floor), beyond(&floor, &ours));
    eprintln!("{} system calls; beyond the floor's: {more:?}; only the floor's: {less:?}", ours.len());
}

/// What is in `calls` and not, or not as often, in `others`.
fn beyond(calls: &[u64], others: &[u64]) -> Vec<u64> {
    let mut left = calls.to_vec();
    for other in others {
        if let Some(at) = left.iter().position(|call| call == other) {
            left.remove(at);
        }
    }
    left
}

fn on_image(path: &str) -> [(&str, &str); 4] {
    [("access", "rw"), ("fsck", "never"), ("kubernetes.io/fsType", "ext4"), ("path", path)]
}

/// Images with a clean ext4 on them, mounted without fsck on all sides.
fn image(node: &VolumeNode, rounds: usize) -> Vec<Row> {
    let [ours, shell, script] = images(node, ["ours", "shell", "script"]);
    let ours = Volume::new("nodeplug~image/image", 1, &on_image(&ours));
    let shell = Volume::new("bench~image/image", 2, &on_image(&shell));
    let script = Volume::new("bench~script/script", 3, &[]).with(&script);
    let sides: [Side<2>; 3] = [&|| ours.round(), &|| shell.round(), &|| script.round()];
    let [[mounts, unmounts], [shell_mounts, shell_unmounts], [script_mounts, script_unmounts]] =
        in_turns(rounds, sides, LOOP_REST);
    let both = mounts.and(&unmounts);
    let shell = shell_mounts.and(&shell_unmounts);
    let script = script_mounts.and(&script_unmounts);
    note(&Row::ratio("ext4 image mount / script", Measure::Wall, 0.5, &mounts, &script_mounts));
    note(&Row::ratio("ext4 image unmount / script", Measure::Wall, 0.5, &unmounts, &script_unmounts));
    note(&Row::ratio("ext4 image mount + unmount / shell driver", Measure::Wall, 0.5, &both, &shell));
    let what = "ext4 image mount + unmount, no fsck / script of losetup, mount, umount";
    note(&Row::ratio(what, Measure::Cpu, 0.5, &both, &script));
    vec![Row::ratio(what, Measure::Wall, 0.5, &both, &script)]
}

/// The time until the last of `count` concurrent mounts has answered, and `count` times that of one alone.
fn together(count: usize, rounds: usize) -> Row {
    let volumes: Vec<Volume> = (0..count).map(|n| Volume::new(OURS, n, &TMPFS)).collect();
    let (mut makespan, mut alone) = (Series::default(), Series::default());
    for round in 0..=rounds {
        let one = volumes[0].round()[0];
        settle();
        let calls: Vec<Call> = volumes.iter().map(Volume::mount).collect();
        let start = Instant::now();
        let samples = all_at_once(&calls);
        let wall = start.elapsed();
        let cpu = samples.iter().map(|s| s.cpu).sum();
        for volume in &volumes {
            volume.unmounted();
        }
        settle();
        if round > 0 {
            makespan.push(Sample { wall, cpu });
            let times = u32::try_from(count).expect("a small number");
            alone.push(Sample { wall: one.wall * times, cpu: one.cpu * times });
        }
    }
    let what = format!("{count} concurrent tmpfs mounts, makespan / {count} times one");
    note(&Row::ratio(&what, Measure::Cpu, 0.6, &makespan, &alone));
    Row::ratio(&what, Measure::Wall, 0.6, &makespan, &alone)
}

/// Two nodes, one of them full, measured in turns.
fn many_mounts(count: usize, rounds: usize) -> Row {
    let (full, empty) = (Worker::start(count), Worker::start(0));
    let sides: [Side<1>; 2] = [&|| [full.turn()], &|| [empty.turn()]];
    let [[on_full], [on_empty]] = in_turns(rounds, sides, Duration::ZERO);
    full.end();
    empty.end();
    let what = format!("tmpfs mount with {count} other mounts on the node / with none");
    Row::ratio(&what, Measure::Wall, 1.3, &on_full, &on_empty)
}

/// A node with volumes on it, that mounts and unmounts one more when it is told to.
struct Worker {
    go: mpsc::Sender<()>,
    done: mpsc::Receiver<Sample>,
    thread: JoinHandle<()>,
}

impl Worker {
    fn start(count: usize) -> Self {
        let (go, told) = mpsc::channel::<()>();
        let (tell, done) = mpsc::channel();
        let thread = thread::spawn(move || {
            let _node = node();
            for pod in 1..=count {
                Volume::new(OURS, pod, &TMPFS).mount().succeed();
            }
            let volume = Volume::new(OURS, 0, &TMPFS);
            while told.recv().is_ok() {
                let [mounted, _] = volume.round();
                tell.send(mounted).expect("somebody who asked");
            }
        });
        Self { go, done, thread }
    }

    fn turn(&self) -> Sample {
        self.go.send(()).expect("a living worker");
        self.done.recv_timeout(LIMIT * 10).expect("a worker's sample")
    }

    fn end(self) {
        drop(self.go);
        self.thread.join().expect("a worker's node");
    }
}

/// The largest resident set of a mount of either kind.
fn memory(node: &VolumeNode) -> Vec<Row> {
    let [image] = images(node, ["weighed"]);
    let volumes = [
        ("tmpfs", Volume::new(OURS, 1, &TMPFS)),
        ("ext4 image", Volume::new("nodeplug~image/image", 2, &on_image(&image))),
    ];
    let row = |(name, volume): &(&str, Volume)| {
        volume.round();
        let (peak, answer) = trace::peak_memory(&volume.mount());
        assert_eq!(answer.success()["status"], "Success", "{answer:?}");
        volume.unmounted();
        #[expect(clippy::cast_precision_loss, reason = "a few thousand KiB")]
        let value = peak as f64 / 1024.0;
        let what = format!("peak memory of a mount, {name}, MiB");
        Row::most(what, 4.0, value, format!("{peak} KiB resident"))
    };
    volumes.iter().map(row).collect()
}
