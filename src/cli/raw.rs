//! What `exec --raw` and `--exit-code remote` need to stand in for `ssh host command`.

use bytes::Bytes;
use tokio::sync::mpsc;

use crate::outcome::Outcome;

/// Blocks of standard input on their way to the command.
const INPUT_QUEUE: usize = 4;
const INPUT_BLOCK: usize = 32 << 10;

/// Our standard input, as blocks. A thread reads it: it may block for ever, and must not keep a
/// worker of the runtime. It ends with the process.
pub(super) fn standard_input() -> std::io::Result<mpsc::Receiver<Bytes>> {
    let (blocks, taken) = mpsc::channel(INPUT_QUEUE);
    std::thread::Builder::new()
        .name("stdin".into())
        .spawn(move || {
            let mut buffer = vec![0; INPUT_BLOCK];
            loop {
                match rustix::io::read(rustix::stdio::stdin(), &mut buffer) {
                    Ok(0) => return,
                    Ok(n) => {
                        let block = Bytes::copy_from_slice(buffer.get(..n).unwrap_or_default());
                        if blocks.blocking_send(block).is_err() {
                            return;
                        }
                    }
                    Err(rustix::io::Errno::INTR) => {}
                    Err(_) => return,
                }
            }
        })?;
    Ok(taken)
}

/// The code that ssh would end with: the command's own, 128+n for signal n, 255 for all else.
pub(super) fn code_of(outcome: Option<&Outcome>) -> u8 {
    const TRANSPORT: u8 = 255;
    let status = outcome.and_then(Outcome::exit_status);
    let code = status.and_then(crate::outcome::ExitStatus::shell_code);
    code.and_then(|code| u8::try_from(code).ok())
        .unwrap_or(TRANSPORT)
}
