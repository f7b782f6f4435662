//! Processes that start together on a cold key compile it once, also when the one that compiles is killed.

use objcache_tests::{KernelProcess, Running};

fn folder() -> (tempfile::TempDir, KernelProcess) {
    let folder = tempfile::tempdir().unwrap();
    let process = KernelProcess::new(env!("CARGO_BIN_EXE_kernel-process"), folder.path());
    (folder, process)
}

#[test]
fn the_second_process_hits_and_does_not_compile() {
    let (_folder, kernel) = folder();
    kernel.write_kernel(41);
    let (first, second) = (kernel.run(), kernel.run());
    assert_eq!((&*first.outcome, &*first.result), ("miss", "41"));
    assert_eq!((&*second.outcome, &*second.result), ("hit", "41"));
    assert_eq!(kernel.compilations(), 1);
}

#[test]
fn an_edit_gives_the_new_answer_and_going_back_the_old_object() {
    let (_folder, kernel) = folder();
    for (value, outcome) in [(1, "miss"), (2, "miss"), (1, "hit"), (2, "hit")] {
        kernel.write_kernel(value);
        let answer = kernel.run();
        assert_eq!((&*answer.outcome, answer.result), (outcome, value.to_string()));
    }
    assert_eq!(kernel.compilations(), 2);
}

#[test]
fn eight_processes_on_a_cold_key_compile_once() {
    let (_folder, kernel) = folder();
    for round in 0..3 {
        kernel.write_kernel(round);
        let running: Vec<_> = (0..8).map(|_| kernel.start(300, &[])).collect();
        let answers: Vec<_> = running.into_iter().map(Running::answer).collect();
        assert!(answers.iter().all(|answer| answer.result == round.to_string()), "{answers:?}");
        assert_eq!(answers.iter().filter(|answer| answer.outcome == "miss").count(), 1, "{answers:?}");
        assert_eq!(kernel.compilations(), round as usize + 1);
    }
}

#[test]
fn when_the_compiling_process_is_killed_another_compiles() {
    let (_folder, kernel) = folder();
    for round in 0..3 {
        kernel.write_kernel(round);
        std::fs::write(kernel.kill_marker(), "").unwrap();
        let running: Vec<_> = (0..8).map(|_| kernel.start(300, &[])).collect();
        let ended: Vec<_> = running.into_iter().map(Running::finish).collect();
        let (survived, killed): (Vec<_>, Vec<_>) = ended.iter().partition(|(status, _)| status.success());
        assert_eq!((survived.len(), killed.len()), (7, 1), "{ended:?}");
        assert!(survived.iter().all(|(_, answer)| answer.result == round.to_string()), "{ended:?}");
        assert_eq!(survived.iter().filter(|(_, answer)| answer.outcome == "miss").count(), 1, "{ended:?}");
        assert_eq!(kernel.compilations(), 2 * (round as usize + 1), "the killed one, and one more");
    }
}
