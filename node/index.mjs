// The same for `import`.
import core from './index.js'

export const {
  Image,
  Pool,
  Vm,
  WarmupVm,
  ExecChild,
  TcpForwarder,
  UdpForwarder,
  UnixForwarder,
  VmEvents,
  VolumeStore,
  SupermachineError,
  ConfigurationError,
  NotFoundError,
  InstallationError,
  ImageError,
  BusyError,
  TimeoutError,
  GuestError,
  EndedError,
  HostError
} = core
