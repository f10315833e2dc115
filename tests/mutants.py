#!/usr/bin/env python3
"""Takes away, one at a time, what a promise rests on, and demands that the test which holds the promise notices.

    tests/mutants.py                 all of them, in a copy of the last commit; a minute or two each
    tests/mutants.py NAME...         those whose names begin so
    tests/mutants.py --list          their names, and the tests

A mutant lives when its test passes without what it guards: then the test is the defect, and this ends with 1. So does a
row whose text is not in the sources exactly once: the row is out of date. Needs root, as the tests do.
"""

import os
import shutil
import subprocess
import sys

TOP = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))

# What is taken away; the file; what stands there; what is put in its place; the test binary; the test that must fail.
MUTANTS = [
    ("hash-of-blobs", "src/store/source.rs", "            id if id == want.oid => Ok(()),\n", "            id if id == want.oid || true => Ok(()),\n",
     "--test store_fetch", "wrong_bytes_are_never_kept_and_a_good_answer_is_taken_later"),
    ("hash-of-trees", "src/store/source.rs", "_ if id == due && boundary.is_none_or(|told| told == id) => {}", "_ if id == due || true => {}",
     "--test store_origins", "a_boundary_is_only_what_has_the_id_it_was_said_to_have"),
    ("hash-of-content-that-came-with-a-size", "src/store/source.rs", "        self.check_blob(want, &content).await?;\n", "",
     "--test store_origins", "content_that_came_with_its_size_is_kept_and_wrong_content_is_not"),
    ("boundary-fixed-for-good", "src/store/source.rs", "            Err(BoundaryError::Taken) => Err(moved()),\n", "            Err(BoundaryError::Taken) => Ok(()),\n",
     "--test store_origins", "the_first_tree_behind_a_boundary_stays_the_one"),
    ("single-flight", "src/store/flights.rs", "                vacant.insert(waiting.clone());\n", "                drop(vacant);\n",
     "--test store_fetch", "twenty_callers_at_once_are_one_fetch"),
    ("look-again-before-fetching", "src/store.rs",
     "                if self.cache.recheck(&source.name, oid).await.map_err(|why| not_stored(oid, &why))? {\n", "                if oid == Oid::EMPTY_TREE {\n",
     "--test store_fetch", "what_came_before_a_flight_looked_is_not_fetched"),
    ("another-try-with-more-time", "src/store.rs", "Err(FetchError::TimedOut { .. }) if !is_own && self.may_ask_again() => {}", "Err(FetchError::TimedOut { .. }) if !is_own && false => {}",
     "--test store_fetch", "somebody_elses_lack_of_time_is_no_answer_for_who_has_more"),
    ("failures-are-forgotten", "src/store/flights.rs",
     "        self.flights.board().remove(&self.cargo);\n        self.outcome.send_replace(Some(Outcome::Landed(result)));",
     "        self.outcome.send_replace(Some(Outcome::Landed(result)));",
     "--test store_fetch", "no_failure_is_remembered"),
    ("deadline-of-an-origin", "src/origin/limits.rs", "timeout(self.deadline, turn).await.map_err(late)", "timeout(Duration::from_secs(600), turn).await.map_err(late)",
     "--test origin_decorators", "every_request_ends_at_its_deadline_the_wait_for_a_turn_included"),
    ("requests-at-once", "src/origin/limits.rs", "turns: Semaphore::new(requests)", "turns: Semaphore::new(requests * 1000)",
     "--test origin_decorators", "every_request_ends_at_its_deadline_the_wait_for_a_turn_included"),
    ("checksum-of-values", "src/cache/record.rs", "(seal(key, content) == *checksum).then_some(content)", "(seal(key, content) == *checksum || true).then_some(content)",
     "--lib", "cache::tests::rotten_values_are_a_miss_are_dropped_and_come_again"),
    ("files-of-another-boot", "src/cache.rs", "            Place::File if record.epoch != shared.epoch => Ok(None),\n", "",
     "--lib", "cache::tests::files_of_another_boot_are_not_served_before_they_are_hashed"),
    ("id-of-files-of-another-boot", "src/cache/objects.rs", "if found == Some(oid) { Ok(()) }", "if found.is_some() { Ok(()) }",
     "--lib", "cache::tests::files_of_another_boot_are_not_served_before_they_are_hashed"),
    ("word-of-the-origin", "src/cache.rs", "if !shared.word(&txn, number, oid)?.is_some_and(|word| word.tree) {", "if shared.word(&txn, number, oid)?.is_none() && false {",
     "--lib", "cache::tests::what_one_origin_delivered_is_not_here_for_another"),
    ("check-of-a-cache-of-another-boot", "src/cache/check.rs", "    walk(&database)\n", "    walk(&database).or(Ok(()))\n",
     "--lib", "cache::tests::a_whole_cache_passes_its_check_and_a_rotten_one_does_not"),
    ("length-of-content", "src/dicfuse/content.rs", "    if found == expected {\n", "    if found <= expected || found > expected {\n",
     "--lib", "dicfuse::content::tests::content_of_another_length_is_no_answer"),
    ("ids-before-they-are-told", "src/dicfuse/table.rs",
     "        self.0.dirs.put(&mut txn, &dir_key(root, dir), &first.to_be_bytes())?;\n        txn.commit()?;\n",
     "        self.0.dirs.put(&mut txn, &dir_key(root, dir), &first.to_be_bytes())?;\n",
     "--test dicfuse_tree", "another_process_answers_for_the_ids_and_asks_for_the_trees_from_the_top_down"),
    ("ids-are-given-once", "src/dicfuse/table.rs", "        if let Some(listed) = self.listed_in(&txn, root, dir)? {\n            return Ok(Some(listed.first));\n        }\n", "",
     "--test dicfuse_tree", "first_listings_by_many_threads_agree_on_the_ids"),
    ("a-dropped-root-is-gone", "src/dicfuse/table.rs", "        let Some(record) = self.0.roots.get(txn, &block.root.to_be_bytes())? else { return Ok(None) };\n        let brief = RootRecord::decode_brief(record).ok_or_else(|| damaged(\"root\", block.root.into()))?;\n",
     "        let Some(record) = self.0.roots.iter(txn)?.next().transpose()?.map(|(_, record)| record) else { return Ok(None) };\n        let brief = RootRecord::decode_brief(record).ok_or_else(|| damaged(\"root\", block.root.into()))?;\n",
     "--lib", "dicfuse::table::tests::what_a_kill_left_of_a_dropped_root_is_removed_at_the_next_start"),
    ("checksum-of-node-records", "src/dicfuse/record.rs", "(version == VERSION && crc32fast::hash(body) == u32::from_be_bytes(*crc)).then_some(Fields(fields))",
     "(version == VERSION && (crc32fast::hash(body) == u32::from_be_bytes(*crc) || true)).then_some(Fields(fields))",
     "--lib", "dicfuse::record::tests::one_flipped_bit_is_noticed"),
    ("tree-cache-bound", "src/dicfuse/trees.rs", "        while held.bytes + bytes > self.capacity && held.remove_oldest() {}\n", "",
     "--lib", "dicfuse::trees::tests::the_bytes_never_exceed_the_bound"),
    ("what-was-written-before-it-was-acknowledged", "src/antares/recover.rs", "        (true, None) => orphan(\"it was never finished, but something was written into it\"),\n", "        (true, None) => Then::Remove,\n",
     "--lib", "antares::recover::tests::every_finding_has_its_plan"),
    ("an-upper-that-is-not-there", "src/antares/recover.rs", "        FoundRecord::Good(record) if found.upper == FoundUpper::Missing && !record.options.read_only => {\n            orphan(\"its upper is gone; if it lies on a file system of its own, is that mounted?\")\n        }\n", "",
     "--lib", "antares::recover::tests::every_finding_has_its_plan"),
    ("changes-without-a-record", "src/antares/recover.rs", "        FoundRecord::Missing => orphan(\"it has no record\"),\n", "        FoundRecord::Missing => Then::Remove,\n",
     "--lib", "antares::recover::tests::every_finding_has_its_plan"),
    ("mounts-of-this-boot", "src/antares/recover.rs", ".filter(|stood| stood.boot_id == at.boot_id)", ".filter(|stood| !stood.boot_id.is_empty())",
     "--lib", "antares::recover::tests::every_finding_has_its_plan"),
    ("a-dead-mount-is-no-mount", "src/antares/recover.rs", "found.mounts.iter().filter(|mount| mount.alive).max_by_key(rank)", "found.mounts.iter().max_by_key(rank)",
     "--lib", "antares::recover::tests::every_finding_has_its_plan"),
    ("checksum-of-workspace-records", "src/antares/record.rs", "    if crc != format!(\"{:08x}\", crc32fast::hash(body)) {\n", "    if crc.is_empty() {\n",
     "--lib", "antares::record::tests::"),
]


def run(command, **options):
    return subprocess.run(command, cwd=options.pop("cwd", TOP), text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False, **options)


def copy(place):
    """The last commit in a directory of its own, over what an earlier run left there: cargo builds what differs."""
    os.makedirs(place, exist_ok=True)
    names = subprocess.run(["git", "ls-files", "-z"], cwd=TOP, stdout=subprocess.PIPE, check=True).stdout.decode().split("\0")
    for name in filter(None, names):
        text = subprocess.run(["git", "show", f"HEAD:{name}"], cwd=TOP, stdout=subprocess.PIPE, check=False)
        to = os.path.join(place, name)
        if text.returncode == 0 and not os.path.islink(to) and not (os.path.exists(to) and open(to, "rb").read() == text.stdout):
            os.makedirs(os.path.dirname(to), exist_ok=True)
            with open(to, "wb") as file:
                file.write(text.stdout)
            shutil.copymode(os.path.join(TOP, name), to)


def judge(place, mutant):
    """None when the test noticed; else what is wrong."""
    _, name, old, new, binary, test = mutant
    path = os.path.join(place, name)
    with open(path, encoding="utf-8") as file:
        whole = file.read()
    if whole.count(old) != 1:
        return f"{name} has its text {whole.count(old)} times and not once: the row is out of date"
    with open(path, "w", encoding="utf-8") as file:
        file.write(whole.replace(old, new))
    try:
        built = run(["cargo", "test", "--locked", "--quiet", *binary.split(), "--no-run"], cwd=place)
        if built.returncode != 0:
            return "it does not compile:\n" + built.stdout[-2000:]
        ran = run(["timeout", "120", "cargo", "test", "--locked", "--quiet", *binary.split(), "--", test], cwd=place)
        if "running 0 tests" in ran.stdout:
            return f"there is no test {test}"
        return None if ran.returncode != 0 else f"it lives: {test} passes"
    finally:
        with open(path, "w", encoding="utf-8") as file:
            file.write(whole)


def main():
    asked = [word for word in sys.argv[1:] if not word.startswith("-")]
    chosen = [mutant for mutant in MUTANTS if not asked or any(mutant[0].startswith(word) for word in asked)]
    if "--help" in sys.argv or "-h" in sys.argv:
        return print(__doc__)
    if "--list" in sys.argv:
        return print("\n".join(f"{mutant[0]}: {mutant[5]}" for mutant in chosen))
    if not chosen:
        sys.exit("no mutant has such a name; see --list")
    target = os.environ.get("CARGO_TARGET_DIR", os.path.join(TOP, "target"))
    place = os.path.join(target, "mutants")
    copy(place)
    os.environ["CARGO_TARGET_DIR"] = os.path.join(place, "target")
    living = 0
    for mutant in chosen:
        wrong = judge(place, mutant)
        living += wrong is not None
        print(f"{'noticed' if wrong is None else 'LIVES  '} {mutant[0]}{'' if wrong is None else ': ' + wrong}", flush=True)
    print(f"{len(chosen) - living} of {len(chosen)} mutants were noticed")
    sys.exit(living != 0)


main()
