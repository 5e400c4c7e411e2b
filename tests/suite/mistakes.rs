//! What a person sees who made mistakes: all of them in one report, each once, in the order of
//! files and places, and nothing that only follows from another.

use std::path::Path;

use crate::fanrun::{Fanrun, holds};

fn write(dir: &Path, name: &str, text: &str) -> String {
    let path = dir.join(name);
    std::fs::write(&path, text).unwrap();
    path.to_str().unwrap().to_owned()
}

/// `run`, `plan` and `check` tell exactly these mistakes, each a place and a piece of the text
/// that follows it, in this order.
fn all_tell(playbook: &str, options: &[&str], wanted: &[(&'static str, &'static str)]) {
    for command in ["run", "plan", "check"] {
        let wanted = wanted.to_vec();
        let tells = move |text: &str| {
            let mut rest = text;
            for (place, message) in &wanted {
                let Some(at) = rest.find(message) else {
                    panic!("{message:?} is not, or not so late, in\n{text}");
                };
                rest = &rest[at..];
                let Some(at) = rest.find(place) else {
                    panic!("{place:?} is not, or not so late, in\n{text}");
                };
                rest = &rest[at..];
            }
            let count = wanted.len();
            assert_eq!(text.matches("error: ").count(), count, "{text}");
            let sum = format!("{count} errors; nothing was connected\n");
            assert!(count == 1 || text.ends_with(&sum), "{text}");
            true
        };
        let options = options.iter().copied();
        Fanrun::new([command, playbook])
            .options(options)
            .expect(2, "", tells);
    }
}

#[test]
fn five_kinds_of_mistakes_are_one_report() {
    let dir = tempfile::tempdir().unwrap();
    let playbook = write(
        dir.path(),
        "five.yml",
        "hosts: web1, wbe2\n\
         vars: {service: app}\n\
         tasks:\n\
         - run: restart ${{ servce }}\n\
         - run: uptime\n  tiemout: 3s\n\
         - {run: uptime, timeout: 5}\n\
         - script: none.sh\n\
         - echo ${{ oops\n",
    );
    let known = write(dir.path(), "known.yml", "hosts: [web1, web2]\n");
    all_tell(
        &playbook,
        &["-i", &known],
        &[
            ("five.yml:1:14", "`wbe2`"),
            ("five.yml:4:20", "unknown variable `servce`"),
            ("five.yml:6:3", "unknown key `tiemout`"),
            ("five.yml:7:26", "`timeout: 5`"),
            ("five.yml:8:11", "`none.sh` does not exist"),
            ("five.yml:9:8", "never closed"),
        ],
    );
}

#[test]
fn what_a_mistake_may_define_is_not_told_as_missing() {
    let dir = tempfile::tempdir().unwrap();
    let playbook = write(
        dir.path(),
        "follow.yml",
        "vasr: {a: 1}\n\
         plays:\n\
         - hosts: wbe1\n\
         \x20 vars: [b: 2]\n\
         \x20 tasks:\n\
         \x20 - {script: none.sh, register: c}\n\
         \x20 - {run: id, register: d}\n\
         \x20 - {run: id, regster: e}\n\
         \x20 - {run: id, template: f}\n\
         - hosts: web1\n\
         \x20 vars: {g-h: 1}\n\
         \x20 tasks:\n\
         \x20 - echo ${{ a }} ${{ b }} ${{ c.stdout }} ${{ d.code }} ${{ e.code }} ${{ f }}\n\
         \x20 - echo ${{ g-h }} ${{ really_missing }}\n\
         \x20 - {run: id, run: who, register: k, register: l}\n\
         \x20 - echo ${{ k.code }} ${{ l.code }}\n",
    );
    let known = write(dir.path(), "known.yml", "hosts: [web1]\n");
    all_tell(
        &playbook,
        &["-i", &known],
        &[
            ("follow.yml:1:1", "unknown key `vasr`"),
            ("follow.yml:3:10", "`wbe1`"),
            ("follow.yml:4:9", "`vars` must be a mapping"),
            ("follow.yml:6:14", "`none.sh` does not exist"),
            ("follow.yml:8:15", "unknown key `regster`"),
            ("follow.yml:9:15", "cannot do it yet"),
            ("follow.yml:11:10", "`g-h` cannot be the name"),
            ("follow.yml:14:25", "unknown variable `really_missing`"),
            ("follow.yml:15:15", "`run` is written twice"),
            ("follow.yml:15:38", "`register` is written twice"),
        ],
    );
}

#[test]
fn a_play_for_unknown_hosts_still_has_its_names_checked() {
    let dir = tempfile::tempdir().unwrap();
    let text = "hosts: wbe1\ntasks: ['echo ${{ of_host }} ${{ nowhere }} ${{ host.nmae }}']\n";
    let playbook = write(dir.path(), "names.yml", text);
    let inventory = "hosts: {web1: {vars: {of_host: 1}}}\n";
    let inventory = write(dir.path(), "i.yml", inventory);
    all_tell(
        &playbook,
        &["-i", &inventory],
        &[
            ("names.yml:1:8", "`wbe1`"),
            ("names.yml:2:34", "unknown variable `nowhere`"),
            ("names.yml:2:49", "`host` has no `nmae`"),
        ],
    );
}

#[test]
fn with_a_broken_inventory_only_what_it_cannot_define_is_missing() {
    let dir = tempfile::tempdir().unwrap();
    let text = "hosts: web\ntasks:\n\
                - {run: 'echo ${{ anything }} ${{ host.nmae }}', register: said}\n\
                - echo ${{ said.stdotu }} ${{ later.code }}\n";
    let playbook = write(dir.path(), "p.yml", text);
    let inventory = "groups: {web: [w1, w1:x]}\n";
    let inventory = write(dir.path(), "i.yml", inventory);
    all_tell(
        &playbook,
        &["-i", &inventory],
        &[
            ("i.yml:1:23", "`x` is not a port"),
            ("p.yml:3:35", "`host` has no `nmae`"),
            ("p.yml:4:12", "`said` has no `stdotu`"),
        ],
    );
}

#[test]
fn a_broken_inventory_is_told_beside_a_playbook_that_is_no_yaml() {
    let dir = tempfile::tempdir().unwrap();
    let playbook = write(dir.path(), "p.yml", "hosts: [a\ntasks: [id]\n");
    let first = "hosts: {a: {port: 0}}\ngroups: {g: {children: [of_another]}}\n";
    let first = write(dir.path(), "b.yml", first);
    let second = write(dir.path(), "c.yml", "hosts: [x\n");
    all_tell(
        &playbook,
        &["-i", &first, "-i", &second, "-l", "nobody"],
        &[
            ("b.yml:1:19", "`0` is not a port"),
            ("c.yml:", "not readable as YAML"),
            ("p.yml:", "this is not YAML"),
        ],
    );
}

#[test]
fn nothing_matched_is_told_beside_mistakes() {
    let dir = tempfile::tempdir().unwrap();
    let text = "hosts: x*\ntasks:\n- {run: id, timeout: 5}\n- script: none.sh\n";
    let playbook = write(dir.path(), "p.yml", text);
    all_tell(
        &playbook,
        &["-i", "a,b"],
        &[
            (" matches no host", "`x*`"),
            ("p.yml:3:22", "`timeout: 5`"),
            ("p.yml:4:11", "`none.sh` does not exist"),
        ],
    );
}

#[test]
fn braces_of_another_tool_get_a_warning_where_they_name_something() {
    let dir = tempfile::tempdir().unwrap();
    let text = "hosts: localhost\n\
                vars: {service: app}\n\
                tasks:\n\
                - run: |\n    true\n    : {{ service }} {{.Names}} {{ elsewhere }} ${{ service }}\n\
                - {run: id -u, register: who}\n\
                - run: [test, '{{ who.stdout | trim }}', '!=', '{{ host.name }}']\n\
                - {run: \"true\", register: never_used}\n";
    let playbook = write(dir.path(), "braces.yml", text);
    for command in ["check", "plan", "run"] {
        Fanrun::new([command, &playbook]).expect(
            0,
            |_: &str| true,
            |text: &str| {
                for part in [
                    "warning: `{{ service }}` stays as it is written",
                    "braces.yml:6:7",
                    "help: did you mean `${{ service }}`?",
                    "braces.yml:8:16",
                    "did you mean `${{ who.stdout | trim }}`?",
                    "braces.yml:8:49",
                ] {
                    assert!(text.contains(part), "{part:?} is not in\n{text}");
                }
                assert_eq!(text.matches("warning: ").count(), 3, "{text}");
                true
            },
        );
    }
}

#[test]
fn groups_of_several_sources_are_one_inventory() {
    let dir = tempfile::tempdir().unwrap();
    let first = write(
        dir.path(),
        "a.yml",
        "groups: {site: {children: [web, dta]}}\n",
    );
    let second = write(
        dir.path(),
        "b.yml",
        "groups: {web: ['w[1-2]'], data: [d1]}\n",
    );
    let hosts = |a: &str| Fanrun::new(["hosts", "-i", a, "-i", &second, "site"]);
    hosts(&first).expect(
        2,
        "",
        holds(["there is no group `dta`", "a.yml:1:33", "`data`"]),
    );
    let first = write(
        dir.path(),
        "a.yml",
        "groups: {site: {children: [web, data]}}\n",
    );
    hosts(&first).expect(0, holds(["w1", "w2", "d1"]), "");
}
