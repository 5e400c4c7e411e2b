"""asyncssh's SFTP server on a loopback port, for the tests.

The argument is a directory with `host_key`, `identity.pub` and `files`, where relative paths
start. It says `listening on PORT`, and ends when its input does.
"""

import asyncio
import os
import sys

import asyncssh


async def main(directory):
    os.chdir(os.path.join(directory, "files"))
    server = await asyncssh.listen(
        "127.0.0.1",
        0,
        server_host_keys=[os.path.join(directory, "host_key")],
        authorized_client_keys=os.path.join(directory, "identity.pub"),
        sftp_factory=True,
    )
    print("listening on", server.get_port())
    await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)


asyncio.run(main(sys.argv[1]))
