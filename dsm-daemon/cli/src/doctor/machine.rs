//! Processors, memory, addresses.

use super::{Check, State, read};
use crate::ls::bytes;
use dsm_core::limits::SPACE;
use dsm_core::sys::map::{Range, available};
use rustix::process::{Resource, getrlimit};
use std::arch::is_x86_feature_detected;

pub(super) fn checks() -> Vec<Check> {
    vec![
        processor(),
        segment_bases(),
        wide_atomics(),
        processors(),
        memory(),
        cgroup(),
        addresses(),
        descriptors(),
        mappings(),
        locked(),
        shared_memory(),
        huge_pages(),
    ]
}

fn processor() -> Check {
    let model = read("/proc/cpuinfo").and_then(|text| {
        let line = text.lines().find(|line| line.starts_with("model name"))?;
        line.split_once(':').map(|(_, model)| model.trim().to_owned())
    });
    let features = [
        ("xsave", is_x86_feature_detected!("xsave")),
        ("avx", is_x86_feature_detected!("avx")),
        ("avx2", is_x86_feature_detected!("avx2")),
        ("avx512f", is_x86_feature_detected!("avx512f")),
    ];
    let list = |there: bool| {
        let names: Vec<&str> = features.iter().filter(|(_, has)| *has == there).map(|(name, _)| *name).collect();
        if names.is_empty() { "none".to_owned() } else { names.join(", ") }
    };
    let found = format!("x86_64, {}; {}; without: {}", model.unwrap_or_default(), list(true), list(false));
    if features[0].1 {
        Check::new("processor", State::Ok, found, "Stores by all these instruction sets are captured.")
    } else {
        let text = "Without XSAVE the library can carry out scalar and SSE stores only.";
        Check::new("processor", State::Warning, found, text)
    }
}

fn segment_bases() -> Check {
    const HWCAP2_FSGSBASE: libc::c_ulong = 1 << 1;
    // SAFETY: reads a value that the kernel handed to the process.
    let there = unsafe { libc::getauxval(libc::AT_HWCAP2) } & HWCAP2_FSGSBASE != 0;
    if there {
        let text = "Redirecting a trapped instruction takes no system call.";
        Check::new("fsgsbase", State::Ok, "available", text)
    } else {
        let text = "Trapped stores that are not plain moves cost a system call more; Linux 5.9 on a processor of 2013 or \
                    later has it.";
        Check::new("fsgsbase", State::Warning, "not available", text)
    }
}

fn wide_atomics() -> Check {
    if is_x86_feature_detected!("cmpxchg16b") {
        Check::new("cx16", State::Ok, "available", "Atomics of 16 bytes work.")
    } else {
        Check::new("cx16", State::Warning, "not available", "Atomics of 16 bytes do not exist here; all others work.")
    }
}

fn processors() -> Check {
    let count = std::thread::available_parallelism().map_or(1, usize::from);
    let found = format!("{count} available to this process");
    match count {
        1 => {
            let text = "Who polls takes the processor from whom it waits for: set DSM_POLL_US=0, so that arbiter and \
                        server sleep at once, and expect some 100 us from host to host.";
            Check::new("processors", State::Warning, found, text)
        }
        2 => {
            let text = "Enough; arbiter and server poll for a moment (DSM_POLL_US) and give way in between, and a program \
                        that waits in a loop should call `std::thread::yield_now`.";
            Check::new("processors", State::Ok, found, text)
        }
        _ => Check::new("processors", State::Ok, found, "Arbiter and server can poll without being in the way."),
    }
}

fn memory() -> Check {
    let free = available();
    let found = format!("{} available", bytes(free));
    if free >= 256 << 20 {
        let text = "Every host holds all bytes of the segments that it has opened, and 8 MiB for the log of a session.";
        Check::new("memory", State::Ok, found, text)
    } else {
        let text = "Little is left for segments: end something, or add memory; what cannot be had is refused when a \
                    segment is opened.";
        Check::new("memory", State::Warning, found, text)
    }
}

fn cgroup() -> Check {
    match limit() {
        None => Check::new("cgroup memory limit", State::Ok, "none", "The machine's memory is the only limit."),
        Some((limit, used)) => {
            let left = limit.saturating_sub(used);
            let found = format!("{}, of which {} are used", bytes(limit), bytes(used));
            let text = "Segments count against it, and it is not looked at when a segment is made: whoever exceeds it is \
                        killed. Raise memory.max, or keep segments smaller.";
            let state = if left >= 256 << 20 { State::Ok } else { State::Warning };
            Check::new("cgroup memory limit", state, found, text)
        }
    }
}

/// The tightest limit of the control groups around us (version 2), and what is used under it.
fn limit() -> Option<(u64, u64)> {
    let groups = read("/proc/self/cgroup")?;
    let ours = groups.lines().find_map(|line| line.strip_prefix("0::"))?.trim_start_matches('/').to_owned();
    let root = std::path::Path::new("/sys/fs/cgroup");
    let number = |path: std::path::PathBuf| read(path.to_str()?)?.parse::<u64>().ok();
    let all = root.join(ours);
    all.ancestors()
        .take_while(|dir| dir.starts_with(root))
        .filter_map(|dir| Some((number(dir.join("memory.max"))?, number(dir.join("memory.current")).unwrap_or(0))))
        .min_by_key(|(limit, used)| limit.saturating_sub(*used))
}

fn addresses() -> Check {
    let wanted = 2 * SPACE as usize;
    let tried = Range::reserve(wanted, None).map(|_| format!("{} could be reserved", bytes(wanted as u64)));
    let good = "A session's range of addresses costs nothing until segments are opened in it.";
    let mut check = Check::needed("address space", tried, good, "");
    if check.state == State::Missing {
        let limit = getrlimit(Resource::As).current;
        check.meaning = match (limit, read("/proc/sys/vm/overcommit_memory").as_deref()) {
            (Some(limit), _) => {
                format!("This shell limits addresses to {}: lift that with `ulimit -v unlimited`.", bytes(limit))
            }
            (None, Some("2")) => {
                "The kernel counts reserved addresses as memory: `sysctl vm.overcommit_memory=0` (or 1) \
                                  ends that."
                    .into()
            }
            _ => {
                "Every session reserves this much: look for limits on address space in whatever contains this process."
                    .into()
            }
        };
    }
    check
}

fn descriptors() -> Check {
    let limit = getrlimit(Resource::Nofile).current;
    let found = limit.map_or("unlimited".to_owned(), |limit| format!("{limit} for one process"));
    if limit.is_none_or(|limit| limit >= 1024) {
        Check::new(
            "descriptors",
            State::Ok,
            found,
            "An arbiter takes one for each segment, and three for each process.",
        )
    } else {
        let text = "An arbiter takes one for each segment, and three for each process: raise it with `ulimit -n 4096`.";
        Check::new("descriptors", State::Warning, found, text)
    }
}

fn mappings() -> Check {
    let limit = read("/proc/sys/vm/max_map_count").and_then(|text| text.parse::<u64>().ok());
    let found = limit.map_or("unknown".to_owned(), |limit| format!("{limit} for one process"));
    if limit.is_none_or(|limit| limit >= 16_384) {
        Check::new("mappings", State::Ok, found, "Every segment takes two, and every hole may split one in three.")
    } else {
        let text = "Every segment takes two, and every hole may split one in three: `sysctl vm.max_map_count=65530`.";
        Check::new("mappings", State::Warning, found, text)
    }
}

fn locked() -> Check {
    let limit = getrlimit(Resource::Memlock).current.map_or("unlimited".to_owned(), bytes);
    Check::new("locked memory", State::Ok, limit, "Of no importance: dsm locks no memory.")
}

fn shared_memory() -> Check {
    let limit = read("/proc/sys/kernel/shmmax").unwrap_or_else(|| "unknown".into());
    let text = "Of no importance, as is the size of /dev/shm: segments are anonymous memory files, which only the \
                memory limits.";
    Check::new("System V limits", State::Ok, format!("shmmax {limit}"), text)
}

fn huge_pages() -> Check {
    let chosen = |path| {
        let text = read(path)?;
        let (_, rest) = text.split_once('[')?;
        rest.split_once(']').map(|(word, _)| word.to_owned())
    };
    let anonymous = chosen("/sys/kernel/mm/transparent_hugepage/enabled").unwrap_or_else(|| "unknown".into());
    let files = chosen("/sys/kernel/mm/transparent_hugepage/shmem_enabled").unwrap_or_else(|| "unknown".into());
    let found = format!("{anonymous} for private memory, {files} for memory files");
    let text = "Either works. With \"always\" for memory files, large tables take fewer TLB entries \
                (/sys/kernel/mm/transparent_hugepage/shmem_enabled).";
    Check::new("huge pages", State::Ok, found, text)
}
