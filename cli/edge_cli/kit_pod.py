"""What `node provision` is told about the site's pod, and what follows from it for one site."""

from dataclasses import dataclass
from typing import Annotated

import typer

from edge_k3s.spec import Account, PodOptions, SensorBroker
from edge_models.errors import ConfigError

GpusOption = Annotated[int, typer.Option(min=0, metavar="N", help="NVIDIA GPUs of the node for the site's pod.")]
SensorsImageOption = Annotated[
    str | None,
    typer.Option(metavar="NAME:TAG", help="Run a mosquitto of this image at the site, for its sensors and machines."),
]
SensorNetworkOption = Annotated[
    list[str] | None,
    typer.Option(metavar="CIDR", help="A network that sensors come from; repeat; with --sensors-image."),
]
SensorPortOption = Annotated[
    int, typer.Option(min=30000, max=32767, help="The node's port that sensors come to; with --sensors-image.")
]
MonitoringOption = Annotated[
    str | None, typer.Option(metavar="NAMESPACE", help="Of the site's Prometheus operator, which may read the figures.")
]


@dataclass(frozen=True, slots=True)
class PodWish:
    """The same for all kits of an order."""

    gpus: int = 0
    sensors_image: str | None = None
    sensor_networks: tuple[str, ...] = ()
    sensor_port: int = 31883
    monitoring: str | None = None

    def check(self, local_broker: str | None) -> None:
        """Raises `ConfigError` where options do not go together."""
        if self.sensors_image is None:
            if self.sensor_networks:
                raise ConfigError("--sensor-network is for a broker at the site: also give --sensors-image NAME:TAG")
            return
        if local_broker is not None:
            raise ConfigError(f"either a broker at {local_broker}, or one in the site's cluster by --sensors-image")
        if not self.sensor_networks:
            raise ConfigError("--sensors-image: from which networks do sensors come? Give --sensor-network CIDR")

    def options(self, local: Account) -> PodOptions:
        """For the site whose user for sensors and machines is `local`: those show its name and password, too."""
        return PodOptions(self.gpus, self._sensors(local), self.monitoring)

    def _sensors(self, local: Account) -> SensorBroker | None:
        if self.sensors_image is None:
            return None
        if local.password is None:
            raise ConfigError(f"the hub gave no password for {local.username}, the user of sensors and machines")
        # Where the hub's broker hashes those of its own users; imported where one is needed.
        from edge_hub.broker.passwords import hash_password  # noqa: PLC0415

        users = {local.username: hash_password(local.password).as_text()}
        return SensorBroker(self.sensors_image, self.sensor_networks, users, self.sensor_port)
