"""paramiko's SFTP server on a loopback port, for the tests.

The argument is a directory with `host_key`, `identity.pub` and `files`, which is the root of all
paths. It says `listening on PORT`, and ends when its input does.
"""

import os
import socket
import sys
import threading

import paramiko
from paramiko import SFTP_OK, SFTPAttributes, SFTPHandle, SFTPServer, SFTPServerInterface


class Login(paramiko.ServerInterface):
    def __init__(self, key):
        self.key = key

    def get_allowed_auths(self, username):
        return "publickey"

    def check_auth_publickey(self, username, key):
        known = key.get_base64() == self.key
        return paramiko.AUTH_SUCCESSFUL if known else paramiko.AUTH_FAILED

    def check_channel_request(self, kind, number):
        if kind == "session":
            return paramiko.OPEN_SUCCEEDED
        return paramiko.OPEN_FAILED_ADMINISTRATIVELY_PROHIBITED


class Handle(SFTPHandle):
    def stat(self):
        return SFTPAttributes.from_stat(os.fstat(self.readfile.fileno()))

    def chattr(self, attributes):
        SFTPServer.set_file_attr(self.path, attributes)
        return SFTP_OK


def answered(work):
    """The status of an exception, where there is one."""

    def checked(*arguments):
        try:
            result = work(*arguments)
        except OSError as error:
            return SFTPServer.convert_errno(error.errno)
        return SFTP_OK if result is None else result

    return checked


class Files(SFTPServerInterface):
    root = "/"

    def real(self, path):
        return self.root + self.canonicalize(path)

    @answered
    def list_folder(self, path):
        found = []
        for name in os.listdir(self.real(path)):
            status = os.lstat(os.path.join(self.real(path), name))
            found.append(SFTPAttributes.from_stat(status, name))
        return found

    @answered
    def stat(self, path):
        return SFTPAttributes.from_stat(os.stat(self.real(path)))

    @answered
    def lstat(self, path):
        return SFTPAttributes.from_stat(os.lstat(self.real(path)))

    @answered
    def open(self, path, flags, attributes):
        mode = 0o666 if attributes.st_mode is None else attributes.st_mode & 0o7777
        descriptor = os.open(self.real(path), flags, mode)
        if flags & os.O_RDWR:
            word = "r+b"
        elif flags & os.O_WRONLY:
            word = "ab" if flags & os.O_APPEND else "wb"
        else:
            word = "rb"
        handle = Handle(flags)
        handle.path = self.real(path)
        handle.readfile = handle.writefile = os.fdopen(descriptor, word)
        return handle

    @answered
    def remove(self, path):
        os.remove(self.real(path))

    @answered
    def rename(self, old, new):
        if os.path.lexists(self.real(new)):
            return paramiko.SFTP_FAILURE
        os.rename(self.real(old), self.real(new))

    @answered
    def posix_rename(self, old, new):
        os.replace(self.real(old), self.real(new))

    @answered
    def mkdir(self, path, attributes):
        mode = 0o777 if attributes.st_mode is None else attributes.st_mode & 0o7777
        os.mkdir(self.real(path), mode)

    @answered
    def rmdir(self, path):
        os.rmdir(self.real(path))

    @answered
    def chattr(self, path, attributes):
        SFTPServer.set_file_attr(self.real(path), attributes)

    @answered
    def symlink(self, target, path):
        os.symlink(target, self.real(path))

    @answered
    def readlink(self, path):
        return os.readlink(self.real(path))


def serve(connection, host_key, login):
    transport = paramiko.Transport(connection)
    transport.add_server_key(host_key)
    transport.set_subsystem_handler("sftp", SFTPServer, Files)
    try:
        transport.start_server(server=login)
    except (EOFError, paramiko.SSHException):
        return
    # The channels must be taken and held, or they are closed.
    channels = []
    while transport.is_active():
        channel = transport.accept(1)
        if channel is not None:
            channels.append(channel)


def main(directory):
    Files.root = os.path.join(directory, "files")
    host_key = paramiko.Ed25519Key(filename=os.path.join(directory, "host_key"))
    with open(os.path.join(directory, "identity.pub")) as public:
        login = Login(public.read().split()[1])
    listener = socket.create_server(("127.0.0.1", 0))
    print("listening on", listener.getsockname()[1])

    def end():
        sys.stdin.read()
        os._exit(0)

    threading.Thread(target=end, daemon=True).start()
    while True:
        connection, _ = listener.accept()
        arguments = (connection, host_key, login)
        threading.Thread(target=serve, args=arguments, daemon=True).start()


main(sys.argv[1])
