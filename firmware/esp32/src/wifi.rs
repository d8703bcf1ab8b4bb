//! The Wi-Fi connection: connects, and retries without end.

use broccoli_embassy::Wifi;
use embassy_time::{Duration, Timer};
use esp_radio::wifi::sta::StationConfig;
use esp_radio::wifi::{
    AuthenticationMethodConfig, Config, ConnectionError, ControllerConfig, DisconnectReason, WifiController,
};
use log::{info, warn};

use crate::led;

/// Pause before the next try. It is doubled each time, up to the maximum.
const RETRY: Duration = Duration::from_secs(1);
const RETRY_MAX: Duration = Duration::from_secs(30);

/// The configuration of the radio.
///
/// # Errors
/// The name or the password is too long.
pub(crate) fn config(access: &Wifi) -> Result<ControllerConfig, &'static str> {
    let ssid = access.ssid.as_str().try_into().map_err(|_| "settings: ssid is too long")?;
    let authentication = match access.password.as_str() {
        "" => AuthenticationMethodConfig::Open,
        password => {
            let password = password.try_into().map_err(|_| "settings: wifi_password is too long")?;
            AuthenticationMethodConfig::Wpa2Personal(password)
        }
    };
    let station = StationConfig::default().with_ssid(ssid).with_authentication(authentication);
    Ok(ControllerConfig::default().with_initial_config(Config::Station(station)))
}

/// Connects, and connects again whenever the connection is lost.
pub(crate) async fn keep_connected(mut controller: WifiController<'static>) {
    let mut pause = RETRY;
    loop {
        match controller.connect_async().await {
            Ok(access_point) => {
                info!("Wi-Fi: connected on channel {}", access_point.channel);
                pause = RETRY;
                led::tell_wifi(true);
                // An error means that the connection is already lost.
                let lost = controller.wait_for_disconnect_async().await;
                warn!("Wi-Fi: connection lost: {}", lost.map_or("", |lost| reason(lost.reason)));
                led::tell_wifi(false);
            }
            Err(ConnectionError::Failed(failed)) => warn!("Wi-Fi: {}", reason(failed.reason)),
            Err(error) => warn!("Wi-Fi: {error}"),
        }
        info!("Wi-Fi: next try in {} s", pause.as_secs());
        Timer::after(pause).await;
        pause = (pause * 2).min(RETRY_MAX);
    }
}

/// The text for a reason: what a user can do about it.
fn reason(reason: DisconnectReason) -> &'static str {
    use DisconnectReason as R;
    match reason {
        R::NoAccessPointFound => "no network has this name; the chip supports only 2.4 GHz",
        R::NoAccessPointFoundWithCompatibleSecurity | R::NoAccessPointFoundInAuthmodeThreshold => {
            "the security of the network is weaker than WPA2"
        }
        R::AuthenticationExpired | R::AuthenticationFailed | R::FourWayHandshakeTimeout | R::HandshakeTimeout => {
            "the access point refuses this chip: check the password"
        }
        R::BeaconTimeout => "the access point is out of reach",
        R::AssociationTooMany => "the access point accepts no more stations",
        _ => "unexpected answer from the access point",
    }
}
