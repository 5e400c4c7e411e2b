//! Login shells that are not POSIX shells, and commands of any length: what fanrun adds to a
//! command means the same everywhere, and what the user wrote goes to the account's own shell.

use std::path::Path;
use std::time::Duration;

use crate::dropbear::Dropbear;
use crate::fanrun::{Fanrun, holds};
use crate::processes;
use crate::sshd::{Sshd, account_with_shell};

const SHELLS: [&str; 4] = ["/bin/bash", "/bin/dash", "/usr/bin/fish", "/usr/bin/tcsh"];

fn with_shell(shell: &str) -> Sshd {
    Sshd::builder().user(&account_with_shell(shell)).start()
}

fn run(sshd: &Sshd, playbook: &str) -> Fanrun {
    let path = write(sshd.directory(), "shells.yml", playbook);
    Fanrun::new(["run", &path, "-i", &format!("{},", sshd.address())])
        .options(sshd.fanrun_args())
        .options(["--no-prefix", "-q"])
}

fn write(dir: &Path, name: &str, text: &str) -> String {
    let path = dir.join(name);
    std::fs::write(&path, text).unwrap();
    path.to_str().unwrap().to_owned()
}

/// What quoting gets wrong: both quotes, backslashes alone and in pairs and before a quote, history,
/// variables, commands, a newline, and something that is not ASCII.
const HOSTILE: &str = r#"it's "x" \ \\ \' !! !x $HOME `id` %s *
two é\"#;

#[test]
fn variables_directories_values_and_words_arrive_whatever_the_login_shell_is() {
    let value = serde_json::to_string(HOSTILE).unwrap();
    let playbook = format!(
        "hosts: all\nvars: {{v: {value}}}\nenv: {{A: {value}}}\ncwd: /usr\ntasks:\n\
         - run: [printf, '%s|\\n', '${{{{ v }}}}', '']\n\
         - run: [sh, -c, 'printf \"%s \" \"$A\"; pwd']\n\
         - {{run: \"printf '%s;\\\\n' ${{{{ v }}}} '${{{{ v }}}}' \\\"${{{{ v }}}}\\\"\", cwd: /}}\n"
    );
    let expected = format!("{HOSTILE}|\n|\n{HOSTILE} /usr\n{HOSTILE};\n{HOSTILE};\n{HOSTILE};\n");
    for shell in SHELLS {
        let sshd = with_shell(shell);
        let expected = expected.clone();
        let check = move |out: &str| {
            assert_eq!(out, expected);
            true
        };
        run(&sshd, &playbook).expect(0, check, holds(["3 ok"]));
    }
}

#[test]
fn plain_text_goes_to_the_login_shell_as_it_is() {
    let sshd = with_shell("/usr/bin/fish");
    Fanrun::exec(&sshd, "set -l x a b; echo $x[2]; string length abc")
        .options(["--no-prefix", "-q"])
        .expect(0, "b\n3\n", holds(["OK  "]));
    let playbook = "hosts: all\ncwd: /usr\ntasks: ['set -l x a b; echo $x[2] (pwd)']\n";
    run(&sshd, playbook).expect(0, "b /usr\n", holds(["OK  "]));
}

#[test]
fn a_script_and_a_timeout_do_not_depend_on_the_login_shell() {
    for shell in ["/usr/bin/fish", "/usr/bin/tcsh"] {
        let sshd = with_shell(shell);
        write(sshd.directory(), "it.sh", "#!/bin/sh\necho \"$1\" here\n");
        let playbook = "hosts: all\ntasks: [{script: it.sh, args: [\"it's\"]}]\n";
        run(&sshd, playbook).expect(0, "it's here\n", holds(["OK  "]));
        let marker = processes::marker("shell");
        Fanrun::exec(
            &sshd,
            &format!("sh -c 'trap \"\" TERM; sleep 300; : {marker}'"),
        )
        .options(["--timeout", "1s"])
        .within(Duration::from_secs(20))
        .expect(1, "", holds(["timed out after 1s, killed"]));
        processes::await_gone(&marker, Duration::from_secs(2));
    }
}

#[test]
fn an_account_that_runs_nothing_is_never_ok() {
    let sshd = with_shell("/usr/sbin/nologin");
    Fanrun::exec(&sshd, "true").expect(1, holds(["not available"]), holds(["exit 1"]));
    let forced = Sshd::builder().config("ForceCommand exit 3").start();
    Fanrun::exec(&forced, "true").expect(1, "", holds(["exit 3"]));
}

/// A command of `length` bytes that ends with a code of its own and reads its input.
fn long(length: usize) -> String {
    let (start, end) = (": ", "; cat; exit 5");
    format!(
        "{start}{}{end}",
        "x".repeat(length - start.len() - end.len())
    )
}

#[test]
fn commands_of_any_length_run_with_their_input_and_end_with_their_code() {
    let sshd = Sshd::start();
    let fish = with_shell("/usr/bin/fish");
    let dropbear = Dropbear::start();
    for length in [100_000, 131_071, 131_072, 1 << 20] {
        let playbook = |hosts: &str| {
            let text = long(length);
            format!("hosts: {hosts}\ntasks: [{{run: '{text}', stdin: the input}}]\n")
        };
        let path = write(sshd.directory(), "long.yml", &playbook("all"));
        let here = write(sshd.directory(), "here.yml", &playbook("localhost"));
        let ends = |run: Fanrun| {
            run.options(["--no-prefix", "-q"])
                .expect(1, "the input\n", holds(["exit 5"]));
        };
        let list = |address: String| format!("{address},");
        ends(Fanrun::new(["run", &path, "-i", &list(sshd.address())]).options(sshd.fanrun_args()));
        ends(Fanrun::new(["run", &path, "-i", &list(fish.address())]).options(fish.fanrun_args()));
        let to = list(dropbear.address());
        ends(Fanrun::new(["run", &path, "-i", &to]).options(dropbear.fanrun_args()));
        ends(Fanrun::new(["run", &path, "--sandbox", "1"]));
        ends(Fanrun::new(["run", &here]));
    }
}
