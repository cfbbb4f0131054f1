//! What is recorded: one entry per folder of `perf-results/runs`, in the order `cargo xtask bench all` measures them.

/// Several measurements that answer one question.
pub(crate) struct Recording {
    /// The end of the folder's name, and what `--only` takes.
    pub(crate) topic: &'static str,
    pub(crate) question: &'static str,
    pub(crate) parts: &'static [Part],
    /// What its reader must know besides what every run says.
    pub(crate) caveats: &'static [&'static str],
    /// Shards share the CPUs they are given: below four CPUs rates say nothing about scaling and are left out.
    pub(crate) scaling: bool,
}

/// Cases of one scenario file, the nodes they are measured on, and how often.
pub(crate) struct Part {
    /// What the tables call it.
    pub(crate) name: &'static str,
    /// A file of `bench/scenarios`.
    pub(crate) scenario: &'static str,
    /// Labels; none for all.
    pub(crate) cases: &'static [&'static str],
    /// The only case of a quick run, where the others are large.
    pub(crate) quick: Option<&'static str>,
    /// The first is what ratios are taken to.
    pub(crate) targets: &'static [&'static str],
    pub(crate) repeats: u32,
    /// Node and generator share all CPUs: shards that shall wake each other need one each.
    pub(crate) unpinned: bool,
}

/// Everybody.
const ALL: &[&str] = &["slimline", "reference", "reference+nodelay", "nats", "relay"];

impl Part {
    const fn new(scenario: &'static str, targets: &'static [&'static str], repeats: u32) -> Self {
        Self { name: scenario, scenario, cases: &[], quick: None, targets, repeats, unpinned: false }
    }

    const fn cases(self, cases: &'static [&'static str]) -> Self {
        Self { cases, ..self }
    }

    const fn quick(self, case: &'static str) -> Self {
        Self { quick: Some(case), ..self }
    }

    const fn unpinned(self) -> Self {
        Self { unpinned: true, ..self }
    }

    const fn called(self, name: &'static str) -> Self {
        Self { name, ..self }
    }
}

impl Recording {
    const fn new(topic: &'static str, question: &'static str, parts: &'static [Part]) -> Self {
        Self { topic, question, parts, caveats: &[], scaling: false }
    }
}

const NODELAY: &str = "`reference+nodelay` is the released reference node whose sockets were given TCP_NODELAY by the harness (pidfd_getfd): \
                       what it would do without Nagle's algorithm, which it is shipped with.";

/// The topic `bench ablate` records.
pub(crate) const OPTIMISATIONS: &str = "optimisations";

/// See the module.
pub(crate) const RECORDINGS: &[Recording] = &[
    Recording {
        caveats: &[
            NODELAY,
            "A closed window: latencies say how much was queued and are left out.",
            "Figures of 1->8 are per delivery.",
        ],
        ..Recording::new(
            "throughput",
            "What rate does each reach, and what does a message cost it, by payload and topology?",
            &[Part::new("throughput", ALL, 5)],
        )
    },
    Recording {
        caveats: &[
            NODELAY,
            "Each node's load is a share of its own capacity, found by a closed window just before: columns differ in rate.",
        ],
        ..Recording::new(
            "latency by load",
            "How long does a message take at 10, 50, 80 and 95 % of the node's own capacity?",
            &[Part::new("latency", ALL, 5)],
        )
    },
    Recording {
        caveats: &[NODELAY],
        ..Recording::new(
            "thousand a second",
            "How long does a message take at 1 000 messages a second, and what does it cost?",
            &[Part::new("sparse", ALL, 5)],
        )
    },
    Recording {
        caveats: &[NODELAY],
        ..Recording::new(
            "ping-pong",
            "How long does a round trip take, for clients with Nagle's algorithm off, and for clients as the SDKs are?",
            &[Part::new("pingpong", ALL, 5)],
        )
    },
    Recording {
        caveats: &[
            NODELAY,
            "A message is about 750 octets: 512 are less than the MiB a stream's window holds, 2 048 more.",
        ],
        ..Recording::new(
            "deep windows",
            "What happens when publishers have more under way than a stream's window holds?",
            &[Part::new("deep", &["slimline", "reference", "reference+nodelay"], 5)],
        )
    },
    Recording::new(
        "engines",
        "What does each way to drive sockets cost: the node's engines, and relays that parse nothing?",
        &[Part::new(
            "throughput",
            &[
                "slimline",
                "slimline:shards: 1, engine: epoll",
                "relay-uring",
                "relay",
                "relay-glommio",
                "relay-tokio",
                "relay-splice",
            ],
            5,
        )
        .cases(&["1->1, 256 B", "1->1, 16384 B", "64->64, 256 B"])],
    ),
    Recording {
        scaling: true,
        ..Recording::new(
            "shards",
            "What does a message cost with 1, 2 and 8 shards, and how many cross from one shard to another?",
            &[Part::new("shards", &["slimline", "slimline:shards: 2", "slimline:shards: 8"], 5)],
        )
    },
    Recording {
        caveats: &[
            "`+lax` is a node that allows links without header MAC (`require_header_mac: false`); a client that offers no key gets one.",
        ],
        ..Recording::new(
            "header MAC",
            "What does the header MAC cost, and what is left above a relay that parses nothing?",
            &[Part::new("mac", &["relay", "slimline+lax", "reference+lax"], 5)],
        )
    },
    Recording {
        caveats: &[
            "`without:NAME` is this tree with `bench/ablations/NAME.patch` applied; the first column is this tree as it is.",
            "Bundles and the waiting of flushes are switched off by the node's own configuration.",
            "mesh: node and generator share all CPUs, so that shards sleep and wake each other; elsewhere each has one.",
        ],
        ..Recording::new(
            OPTIMISATIONS,
            "What does each optimisation of the road buy?",
            &[
                Part::new("throughput", &["slimline", "slimline:shards: 1, io: {disable: [bundles]}"], 7)
                    .called("bundles")
                    .cases(&["1->1, 16384 B", "64->64, 256 B"]),
                Part::new("throughput", &["slimline", "without:flush", "slimline:shards: 1, io: {flush_us: 50}"], 7)
                    .called("flush")
                    .cases(&["1->1, 256 B", "64->64, 256 B"]),
                Part::new("latency", &["slimline", "slimline:shards: 1, io: {flush_us: 50}"], 7)
                    .called("flush-by-load"),
                Part::new("throughput", &["slimline", "without:gather"], 7)
                    .called("gather")
                    .cases(&["1->1, 16384 B", "1->8, 16384 B"]),
                Part::new("throughput", &["slimline", "without:midstate"], 7)
                    .called("midstate")
                    .cases(&["1->1, 256 B"]),
                Part::new("pingpong", &["slimline", "without:quick-ack"], 7).called("quick-ack").cases(&["Nagle on"]),
                Part::new("shards", &["slimline:shards: 2", "without:mesh:shards: 2"], 7)
                    .called("mesh")
                    .unpinned()
                    .cases(&["8->8, to any, 256 B"]),
            ],
        )
    },
    Recording {
        caveats: &["A million names: the reference was still taking them after five minutes, so it is left out there."],
        ..Recording::new(
            "names",
            "What does a name cost in memory, how fast are names taken, and what does a lookup among so many cost?",
            &[
                Part::new("names", &["slimline", "reference"], 3)
                    .cases(&["10k names", "100k names"])
                    .quick("10k names"),
                Part::new("names", &["slimline"], 5).cases(&["1M names"]),
            ],
        )
    },
    Recording::new(
        "idle connections",
        "What does an idle connection cost in memory, and does a canary among them notice?",
        &[Part::new("idle", &["slimline", "reference"], 3).quick("1k idle")],
    ),
    Recording::new(
        "churn",
        "How many clients a second can come, subscribe, get a message and leave?",
        &[Part::new("churn", &["slimline", "reference"], 3)],
    ),
];

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::scenario::Case;
    use std::path::Path;

    #[test]
    fn every_part_is_there() {
        let bench = Path::new(env!("CARGO_MANIFEST_DIR")).join("../bench");
        for part in RECORDINGS.iter().flat_map(|recording| recording.parts) {
            let file = bench.join("scenarios").join(part.scenario).with_extension("toml");
            let cases: Vec<String> = part.cases.iter().chain(&part.quick).map(|case| (*case).to_owned()).collect();
            Case::read(&file, &cases).unwrap();
            for target in part.targets {
                let Some(name) = target.strip_prefix("without:") else { continue };
                let patch = bench.join("ablations").join(name.split(':').next().unwrap()).with_extension("patch");
                assert!(patch.is_file(), "{} is missing", patch.display());
            }
        }
    }

    /// Parts of one name share their tables, so they must be of one file, and no case may be measured twice.
    #[test]
    fn parts_of_one_name_are_one_table() {
        for recording in RECORDINGS {
            for (at, one) in recording.parts.iter().enumerate() {
                for other in recording.parts[at + 1..].iter().filter(|other| other.name == one.name) {
                    assert_eq!(one.scenario, other.scenario, "{}", one.name);
                    let is_twice = |case: &&str| one.cases.contains(case) || one.cases.is_empty();
                    assert!(!other.cases.is_empty() && !other.cases.iter().any(is_twice), "{}", one.name);
                }
            }
        }
        let names = RECORDINGS.iter().find(|recording| recording.topic == "names").unwrap();
        assert!(names.parts.iter().all(|part| part.name == "names"), "a million stands beside the others");
    }

    #[test]
    fn topics_differ() {
        for (at, one) in RECORDINGS.iter().enumerate() {
            assert!(RECORDINGS[at + 1..].iter().all(|other| other.topic != one.topic), "{}", one.topic);
        }
    }
}
