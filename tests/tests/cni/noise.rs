//! Whatever comes in, one JSON answer or none goes out, and never a signal.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStringExt;
use std::path::Path;
use std::process::Command;

use harness::call;
use harness::look;
use harness::node::{Node, PLUGINS};
use harness::runtime::{Runtime, compact};
use harness::suite::any;
use libtest_mimic::Trial;
use serde_json::Value;

use crate::networks::{MODES, full, id};

/// Runs of the plugin; each is a few milliseconds.
const RUNS: u64 = 400;
const COMMANDS: [&str; 7] = ["ADD", "DEL", "CHECK", "GC", "STATUS", "VERSION", "add"];
const VARIABLES: [&str; 6] =
    ["CNI_COMMAND", "CNI_CONTAINERID", "CNI_NETNS", "CNI_IFNAME", "CNI_ARGS", "CNI_PATH"];

pub fn trials() -> Vec<Trial> {
    vec![
        any("random_input_gets_a_valid_answer", |node| noise(node, 1, false)),
        any("random_changes_of_a_good_configuration_get_a_valid_answer", |node| noise(node, 2, true)),
    ]
}

/// xorshift64*: the same runs every time, so that a failure can be had again by its number.
struct Dice(u64);

impl Dice {
    fn throw(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    fn below(&mut self, bound: usize) -> usize {
        usize::try_from(self.throw() % bound.max(1) as u64).expect("a small number")
    }

    fn bytes(&mut self, most: usize) -> Vec<u8> {
        (0..self.below(most)).map(|_| (self.throw() & 0xff) as u8).collect()
    }
}

fn noise(node: &Node, seed: u64, reasonable: bool) {
    node.install_reference();
    let pod = node.pod();
    for run in 0..RUNS {
        let mut dice = Dice(seed << 32 | (run + 1));
        let runtime = Runtime::new(full(MODES[dice.below(2)]));
        let mut command = Command::new(Path::new(PLUGINS).join(runtime.config["type"].as_str().unwrap()));
        command.env_clear().env("PATH", "/usr/sbin:/usr/bin").current_dir("/");
        let stdin = if reasonable {
            let call = runtime.call(COMMANDS[dice.below(7)], &id("noise"), pod.name(), None);
            command.envs(call.env);
            bent(&mut dice, runtime.config)
        } else {
            dice.bytes(300)
        };
        for name in VARIABLES {
            let spare = reasonable && dice.below(8) > 0;
            if !spare && dice.below(3) > 0 {
                let mut value = dice.bytes(40);
                value.retain(|b| *b != 0);
                command.env(name, OsString::from_vec(value));
            }
        }
        if !reasonable {
            command.env("CNI_COMMAND", COMMANDS[dice.below(7)]);
        }
        let answer = call::run(&mut command, &stdin);
        let text = String::from_utf8_lossy(&stdin);
        let what = format!("run {run} of seed {seed}: {command:?} with {text}: {answer:?}");
        assert!(answer.signal.is_none(), "{what}");
        assert!(answer.stdout.trim().is_empty() || answer.json.is_some(), "{what}");
        // Without a command it is a person who asks, and gets words and not JSON.
        let person = command.get_envs().all(|(k, v)| k != "CNI_COMMAND" || v.is_none_or(OsStr::is_empty));
        assert!(answer.ok() || answer.code() > 0 || person, "{what}");
    }
    let runtime = Runtime::new(full("routed"));
    assert!(runtime.call("DEL", &id("noise"), pod.name(), None).run().ok());
    drop(look::leftovers());
}

/// A good configuration with a key gone, a value of another kind, or a byte changed.
fn bent(dice: &mut Dice, mut config: Value) -> Vec<u8> {
    for _ in 0..=dice.below(3) {
        let keys: Vec<String> = config.as_object().unwrap().keys().cloned().collect();
        let key = keys[dice.below(keys.len())].clone();
        let inside = config["ipam"].as_object().map(|o| o.keys().cloned().collect::<Vec<_>>());
        match dice.below(4) {
            0 => drop(config.as_object_mut().unwrap().remove(&key)),
            1 => config[&key] = odd(dice),
            2 => {
                if let Some(inside) = inside.filter(|i| !i.is_empty()) {
                    let below = inside[dice.below(inside.len())].clone();
                    config["ipam"][&below] = odd(dice);
                }
            }
            _ => config["prevResult"] = odd(dice),
        }
        if config.as_object().is_none_or(serde_json::Map::is_empty) {
            break;
        }
    }
    let mut bytes = compact(config);
    if dice.below(4) == 0 {
        let at = dice.below(bytes.len());
        bytes[at] = (dice.throw() & 0xff) as u8;
    }
    bytes
}

fn odd(dice: &mut Dice) -> Value {
    let texts = [
        "null",
        "true",
        "-1",
        "18446744073709551616",
        "1e400",
        "\"\"",
        "\"::\"",
        "\"0.0.0.0/0\"",
        "[]",
        "{}",
        "[[[]]]",
        "\"\\u0000\"",
        "\"\u{202e}x\"",
        "[[{\"subnet\":\"::/0\"}]]",
        "[[{\"subnet\":\"1.1.1.1/32\"}]]",
        "{\"cniVersion\":\"1.0.0\",\"ips\":[{\"address\":\"x\"}]}",
        "\"../../etc\"",
        "4294967296",
    ];
    serde_json::from_str(texts[dice.below(texts.len())]).unwrap_or(Value::Null)
}
