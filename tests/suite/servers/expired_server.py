"""An SSH server on a loopback port that takes the password `old` only to demand a new one.

The argument is a directory with `host_key`. It says `listening on PORT`, and ends when its input
does. With `silent` as a second argument the password gets no answer at all, with `banner` it gets
a text and then no answer.
"""

import asyncio
import os
import sys

import asyncssh


class Server(asyncssh.SSHServer):
    def connection_made(self, conn):
        self.conn = conn

    def password_auth_supported(self):
        return True

    async def validate_password(self, username, password):
        if sys.argv[2:] == ["banner"]:
            self.conn.send_auth_banner("one moment, please\n")
        if sys.argv[2:]:
            await asyncio.Event().wait()
        raise asyncssh.PasswordChangeRequired("choose a new password")


async def main(directory):
    server = await asyncssh.listen(
        "127.0.0.1",
        0,
        server_factory=Server,
        kbdint_auth=sys.argv[2:] != ["banner"],
        server_host_keys=[os.path.join(directory, "host_key")],
    )
    print("listening on", server.get_port())
    await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)


asyncio.run(main(sys.argv[1]))
