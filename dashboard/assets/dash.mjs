// What our scripts ask of Dash in the browser.

/** The answer of a callback that changes nothing. */
export const none = () => window.dash_clientside.no_update;

/** Set properties of a component, as a callback does. @param {string} id @param {Properties} properties */
export const setProps = (id, properties) => window.dash_clientside.set_props(id, properties);
